"""The types of analysis: what is asked of each, and the fields that are filled."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from terrace.errors import Invalid


@dataclass(frozen=True, slots=True)
class AnalysisType:
    """`schema` is a JSON schema of the fields; none where the answer is markdown alone."""

    name: str
    title: str
    prompt: str
    schema: Mapping[str, Any] | None = field(default=None)


def _text(says: str) -> dict[str, Any]:
    return {"type": ["string", "null"], "description": says}


def _number(says: str) -> dict[str, Any]:
    return {"type": ["number", "null"], "description": says}


def _texts(says: str) -> dict[str, Any]:
    return {"type": "array", "items": {"type": "string"}, "description": says}


def _object(**properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _objects(says: str, **properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": _object(**properties), "description": says}


_DATE = "as YYYY-MM-DD, as exact as the document is (YYYY or YYYY-MM if it says no more)"
_PARTY = {"name": _text("Name."), "address": _text("Address in one line."), "tax_id": _text("Tax or VAT number.")}

RESUME = AnalysisType(
    "resume",
    "Resume",
    "This is a resume (curriculum vitae). Write it out as clean markdown, everything it says in its own order, and "
    "fill the fields from it. Judge nobody: say what it says, not what to think of it.",
    _object(
        name=_text("Full name."),
        email=_text("E-mail address."),
        phone=_text("Telephone number as written."),
        location=_text("Where the person lives."),
        headline=_text("Present role or the line under the name."),
        summary=_text("The person in two or three sentences, from what the resume says."),
        skills=_texts("Skills, tools and methods, each by itself."),
        languages=_texts("Languages, with the level if it is given."),
        links=_texts("Web addresses."),
        experience=_objects(
            "Positions, latest first.",
            title=_text("Role."),
            organisation=_text("Employer."),
            start=_text(f"Beginning {_DATE}."),
            end=_text(f"End {_DATE}; null while it lasts."),
            description=_text("What was done there."),
        ),
        education=_objects(
            "Education, latest first.",
            degree=_text("Degree or certificate."),
            institution=_text("Where."),
            start=_text(f"Beginning {_DATE}."),
            end=_text(f"End {_DATE}."),
        ),
    ),
)
INVOICE = AnalysisType(
    "invoice",
    "Invoice",
    "This is an invoice or a receipt. Write out as markdown what it says, positions as a table, and fill the fields. "
    "Copy numbers exactly; amounts are numbers with a point and without thousands separators. Compute nothing.",
    _object(
        number=_text("Number of the invoice."),
        date=_text(f"Date of the invoice {_DATE}."),
        due_date=_text(f"When it is to be paid {_DATE}."),
        seller=_object(**_PARTY),
        buyer=_object(**_PARTY),
        currency=_text("Three letters (ISO 4217)."),
        items=_objects(
            "Positions in their order.",
            description=_text("What."),
            quantity=_number("How many."),
            unit_price=_number("Price of one."),
            amount=_number("Price of the position."),
        ),
        subtotal=_number("Sum before tax."),
        tax=_number("Tax in all."),
        total=_number("What is to be paid."),
        iban=_text("Account it is paid to."),
    ),
)
CONTRACT = AnalysisType(
    "contract",
    "Contract",
    "This is a contract. Sum it up as markdown, section by section, with the clause numbers, and fill the fields. "
    "Quote periods, dates and amounts exactly. What the contract does not say stays null, however usual.",
    _object(
        title=_text("Title."),
        parties=_objects("Who concludes it.", name=_text("Name."), role=_text("Such as landlord or customer.")),
        date=_text(f"When it was signed {_DATE}."),
        effective_date=_text(f"When it begins {_DATE}."),
        end_date=_text(f"When it ends by itself {_DATE}."),
        subject=_text("What it is about, in a sentence."),
        payment=_text("Who pays what, and when."),
        term=_text("How long it runs and how it is prolonged."),
        notice_period=_text("How it is ended, with which notice."),
        liability=_text("Limits of liability and penalties."),
        governing_law=_text("Law and place of jurisdiction."),
        obligations=_texts("What each party must do, a sentence each."),
        unusual=_texts("Clauses a careful reader would ask about, a sentence each with the clause number."),
    ),
)
FREE = AnalysisType(
    "free",
    "Any document",
    "Describe this document: what it is, whom it is from and for, and what it says. Write out its content as clean "
    "markdown, tables as tables; describe pictures and diagrams in words.",
)

TYPES = {each.name: each for each in (RESUME, INVOICE, CONTRACT, FREE)}


def find_type(name: str) -> AnalysisType:
    if name not in TYPES:
        raise Invalid(f"A type of analysis is one of: {', '.join(TYPES)}.", code="analysis_type")
    return TYPES[name]
