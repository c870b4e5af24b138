"""The question service: ask, get the answer, read it again. Only one's own."""

from pydantic import BaseModel, Field

from terrace.chat.base import Ask
from terrace.chat.questions import Question
from terrace.errors import Missing
from terrace.web.access import Me, Who, resource
from terrace.web.answers import whole
from terrace.web.api.headers import IdempotencyKey
from terrace.web.api.pages import Cursor, Limit, Page
from terrace.web.services import House

router = resource(tags=["questions"])
short = router  # promised without the prefix too


class NewQuestion(BaseModel):
    question: str = Field(min_length=1, examples=["What is the notice period?"])
    model: str | None = Field(None, max_length=300)
    use_rag: bool | None = Field(None, description="Answer from documents; by default when there are any.")


@router.post("/questions", status_code=201)
async def ask(house: House, who: Who, body: NewQuestion, idempotency_key: IdempotencyKey = None) -> Question:
    """The answer, when it is written. If it fails, the problem names the question, which is kept."""
    question = Ask(body.question, use_rag=body.use_rag, model=body.model, key=idempotency_key)
    asked = await house.questions.ask(who, question)
    whole(await house.jobs.wait(who, asked.job_id), question_id=asked.id)
    return await house.questions.get(who, asked.id)


@router.get("/questions/{question_id}")
async def get_question(house: House, who: Who, question_id: str) -> Question:
    return await house.questions.get(who, question_id)


@router.get("/users/{user_id}/questions")
async def list_questions(
    house: House, me: Me, user_id: str, limit: Limit = 50, cursor: Cursor = None
) -> Page[Question]:
    """Newest first."""
    if user_id != "me" and user_id != me.scope.user:
        raise Missing("No such user, or not yours to read.", code="user_missing")
    items, following = await house.questions.list(me.scope, limit=limit, cursor=cursor)
    return Page(items=items, next=following)
