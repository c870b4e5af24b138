"""The settings tree: frozen, read once, defaults < terrace.toml < environment (`TERRACE_*`, `__` nests).

A room receives its own section and never reads the environment itself.
"""

import os
from functools import cached_property
from ipaddress import ip_network
from pathlib import Path
from tomllib import TOMLDecodeError
from typing import Annotated, Any, Literal, Self

from platformdirs import user_data_path
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from terrace.errors import Invalid

KB, MB, GB = 1024, 1024**2, 1024**3


SecretURL = Annotated[str, Field(repr=False)]  # may hold a password


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class S3(Section):
    endpoint: str = Field("", description="Address of the S3 service; empty asks AWS.")
    region: str = Field("us-east-1", description="Its region.")
    access_key: SecretStr = Field(SecretStr(""), description="Who asks; empty takes what the machine has.")
    secret_key: SecretStr = Field(SecretStr(""), description="The key's secret.")
    presigned: bool = Field(False, description="Send downloads to the bucket itself, by links of a few minutes.")


class Storage(Section):
    url: SecretURL = Field(
        "", description="`postgresql://...` or `sqlite:///...`; empty means terrace.db in the data folder."
    )
    readers: int = Field(4, ge=1, le=64, description="Threads that read SQLite.")
    durability: Literal["full", "normal"] = Field(
        "full", description="full survives a power cut; normal a crash of the process only."
    )
    connections: int = Field(8, ge=2, le=200, description="Connections of one process to PostgreSQL, at most.")
    listen_url: SecretURL = Field(
        "", description="PostgreSQL past a pooler in transaction mode, to hear of changes at once; empty takes `url`."
    )
    row_security: bool = Field(True, description="PostgreSQL itself keeps tenants apart too.")
    blobs: str = Field("", description="`s3://bucket/prefix`, or a folder; empty means blobs in the data folder.")
    s3: S3 = S3()


class Redis(Section):
    url: SecretURL = Field("", description="`redis://...`: events and limits of many processes go through it.")
    prefix: str = Field("terrace", pattern=r"^[A-Za-z0-9_-]{1,50}$", description="What its keys begin with.")


class Jobs(Section):
    engine: Literal["local", "celery"] = Field("local", description="Which engine runs jobs.")
    broker: SecretURL = Field("", description="Celery's broker, `redis://` or `amqp://`; empty takes redis.url.")
    workers: bool = Field(True, description="Run jobs inside `terrace serve`.")
    io_slots: int = Field(500, ge=1, le=10_000, description="Concurrent waiting jobs (model calls and such).")
    cpu_slots: int = Field(
        default_factory=lambda: max(1, (os.cpu_count() or 2)), ge=1, le=256,
        description="Concurrent CPU-bound jobs.",
    )  # fmt: skip
    tenant_cap: int = Field(200, ge=1, description="Running jobs one tenant may have at a time.")
    max_queued: int = Field(200_000, ge=1, description="Waiting jobs one tenant may have.")
    lease: float = Field(30.0, gt=0, description="Seconds a worker owns a job without a heartbeat.")
    heartbeat: float = Field(10.0, gt=0, description="Seconds between heartbeats.")
    max_failures: int = Field(5, ge=1, description="Failures before a job is a dead letter.")
    max_crashes: int = Field(3, ge=1, description="Dead workers before a job is a dead letter.")
    backoff: float = Field(2.0, gt=0, description="Seconds before the first retry; doubles, with jitter.")
    backoff_max: float = Field(300.0, gt=0, description="Longest wait between retries, seconds.")
    drain: float = Field(10.0, ge=0, description="Seconds running jobs get to finish on SIGTERM.")
    keep_days: int = Field(30, ge=1, description="Days a finished job and its events are kept.")


class Provider(Section):
    kind: Literal["openai", "ollama", "anthropic", "llamacpp", "quote"] = Field(
        description="openai is any OpenAI-compatible server."
    )
    base_url: str = Field("", description="Where it answers, such as http://127.0.0.1:8080/v1.")
    api_key: SecretStr = Field(SecretStr(""), description="Its key; never shown again.")
    models: tuple[str, ...] = Field((), description="Models to offer; empty asks the provider.")
    path: Path | None = Field(None, description="llamacpp: the GGUF file.")
    concurrency: int = Field(0, ge=0, description="Calls at a time; 0 takes models.concurrency.")


class Models(Section):
    default: str = Field("auto", description="Model used when a request names none; auto picks one.")
    providers: dict[str, Provider] = Field(default_factory=dict)
    discover: bool = Field(True, description="Look for keys in the environment and a local Ollama.")
    ollama_url: str = Field("http://127.0.0.1:11434", description="Where discovery looks for Ollama.")
    fallback: tuple[str, ...] = Field((), description="Models tried in turn when the first fails early.")
    first_token_timeout: float = Field(120.0, gt=0, description="Seconds to the first token.")
    idle_timeout: float = Field(120.0, gt=0, description="Seconds between two pieces of a stream.")
    total_timeout: float = Field(900.0, gt=0, description="Seconds for a whole answer.")
    connect_timeout: float = Field(10.0, gt=0, description="Seconds to reach a provider.")
    retries: int = Field(2, ge=0, le=10, description="Retries before the first token.")
    concurrency: int = Field(1024, ge=1, description="Calls at a time to one provider.")
    queue: int = Field(4096, ge=0, description="Calls that may wait for a place; more are refused.")
    queue_wait: float = Field(30.0, ge=0, description="Seconds a call may wait for a place.")
    max_answer_bytes: int = Field(16 * MB, ge=KB, description="An upstream answer larger than this is cut.")


class Embedding(Section):
    model: str = Field(
        "all-MiniLM-L6-v2",
        description="`all-MiniLM-L6-v2` (built in), a folder with an ONNX export, a hub id, "
        "`<provider>/<model>`, or `none` for full text alone.",
    )
    precision: Literal["int8", "fp32"] = Field("int8", description="Of the built-in model; int8 is four times smaller.")
    threads: int = Field(
        default_factory=lambda: max(1, (os.cpu_count() or 2)), ge=1, le=64, description="Threads that embed."
    )
    batch_tokens: int = Field(512, ge=64, le=65_536, description="Padded tokens per batch.")
    unload_after: float = Field(900.0, ge=0, description="Idle seconds before the model leaves memory; 0 keeps it.")
    hub: str = Field("https://huggingface.co", description="Where a hub id is fetched from.")


class Knowledge(Section):
    max_file_bytes: int = Field(200 * MB, ge=KB, description="Largest file taken.")
    max_batch_files: int = Field(1000, ge=1, description="Files in one batch or zip.")
    max_pages: int = Field(5000, ge=1, description="Pages, slides or sheets of one file.")
    max_text_chars: int = Field(20_000_000, ge=1000, description="Characters of text of one file.")
    parse_timeout: float = Field(120.0, gt=0, description="Seconds one file may take to parse.")
    parse_memory: int = Field(1536 * MB, ge=128 * MB, description="Bytes of address space for a parser.")
    chunk_tokens: int = Field(220, ge=32, le=2048, description="Target size of a chunk, in tokens.")
    chunk_overlap: int = Field(0, ge=0, le=512, description="Tokens a chunk repeats of the one before.")
    embedding: Embedding = Embedding()


class Chat(Section):
    max_message_chars: int = Field(100_000, ge=1, description="Longest message taken.")
    passages: int = Field(6, ge=1, le=50, description="Passages given to the model.")
    context_tokens: int = Field(8192, ge=512, description="Context assumed where a model tells none.")
    answer_tokens: int = Field(1024, ge=16, description="Tokens kept free for the answer.")


class Cache(Section):
    exact: bool = Field(True, description="Give a stored answer for the same question over the same documents.")
    semantic: bool = Field(False, description="And for one that means the same.")
    similarity: float = Field(0.95, ge=0.5, le=1, description="How alike two questions must be, as cosine.")
    hours: float = Field(24.0, gt=0, description="How long an answer is good.")
    entries: int = Field(10_000, ge=1, description="Answers kept a tenant; the oldest go first.")


class Outbound(Section):
    allow: tuple[str, ...] = Field(
        (), description="Private addresses or networks that webhooks and sources may reach, such as 10.0.0.0/8."
    )
    connect_timeout: float = Field(10.0, gt=0, description="Seconds to reach a host.")
    timeout: float = Field(30.0, gt=0, description="Seconds for a whole answer.")
    max_bytes: int = Field(50 * MB, ge=KB, description="Largest answer read.")


class Webhooks(Section):
    endpoints: int = Field(50, ge=1, description="Endpoints a tenant may have.")
    timeout: float = Field(15.0, gt=0, description="Seconds a receiver has to answer.")
    retry_hours: float = Field(24.0, gt=0, description="How long a delivery is tried again.")
    keep_days: int = Field(30, ge=1, description="Days the log of deliveries is kept.")


class Schedules(Section):
    most: int = Field(200, ge=1, description="Schedules a tenant may have.")
    keep_runs: int = Field(200, ge=1, description="Runs remembered of each.")
    folders: tuple[Path, ...] = Field((), description="Folders of this machine that may be watched, with all in them.")
    max_pages: int = Field(5000, ge=1, description="Pages one site may bring.")
    max_depth: int = Field(10, ge=0, description="Links followed from the first page.")
    delay: float = Field(0.5, ge=0, description="Seconds between two requests to one site.")


class Analysis(Section):
    model: str = Field("auto", description="Vision model; auto takes one that reads images, if any is there.")
    max_pages: int = Field(200, ge=1, description="Pages of one file that are looked at.")
    max_file_bytes: int = Field(100 * MB, ge=KB, description="Largest file taken.")
    max_pixels: int = Field(4_000_000, ge=10_000, description="Pixels of a picture given to the model.")
    dpi: int = Field(200, ge=50, le=600, description="At which pages are drawn, unless that is more pixels.")
    pages_at_once: int = Field(8, ge=1, description="Pages in one call of the model; more are combined after.")
    repairs: int = Field(2, ge=0, le=10, description="How often a model is told what was wrong with its JSON.")
    ocr: Literal["auto", "tesseract", "rapidocr", "none"] = Field(
        "auto", description="What reads pictures where no vision model is."
    )
    ocr_languages: str = Field("eng", description="Tesseract's names of languages, joined by +.")


class Campaigns(Section):
    concurrency: int = Field(50, ge=1, le=1000, description="Messages of one campaign written at a time.")
    max_contacts: int = Field(1_000_000, ge=1, description="Contacts a tenant may have.")
    max_import_rows: int = Field(1_000_000, ge=1, description="Rows of one import.")
    max_fields: int = Field(200, ge=1, description="Custom fields of a contact.")
    max_field_chars: int = Field(20_000, ge=1, description="Longest value of a field.")
    query_timeout: float = Field(60.0, gt=0, description="Seconds a query on another database may take.")
    knowledge_passages: int = Field(4, ge=1, le=50, description="Passages `{{knowledge}}` stands for.")


class Batches(Section):
    max_file_bytes: int = Field(200 * MB, ge=KB, description="Largest file of /v1/files.")
    max_requests: int = Field(50_000, ge=1, description="Requests of one batch.")
    concurrency: int = Field(50, ge=1, le=1000, description="Requests of one batch made at a time.")


class OIDC(Section):
    issuer: str = Field(description="Its address; what it offers is read from its discovery document.")
    client_id: str = Field(description="What it calls us.")
    client_secret: SecretStr = Field(SecretStr(""), description="Empty for a public client (PKCE is used always).")
    label: str = Field("", description="What the button says; its name when empty.")
    scopes: tuple[str, ...] = Field(("openid", "email", "profile"), description="What is asked for.")
    domains: tuple[str, ...] = Field((), description="Only e-mail addresses of these domains; empty takes all.")
    sign_up: bool = Field(True, description="Whoever logs in and is unknown gets an account.")


class SMTP(Section):
    host: str = Field("", description="Mail server; empty sends no mail, and links are handed over by an operator.")
    port: int = Field(587, ge=1, le=65535, description="Its port.")
    user: str = Field("", description="Login there, if it wants one.")
    password: SecretStr = Field(SecretStr(""), description="Its password.")
    sender: str = Field("", description="From whom mails come: an address, or `Name <address>`.")
    security: Literal["starttls", "tls", "none"] = Field("starttls", description="How the connection is kept private.")


class Accounts(Section):
    required: bool = Field(False, description="Have people log in even on loopback, before the first account exists.")
    registration: Literal["auto", "open", "invite", "closed"] = Field(
        "auto", description="Who may register: anybody, the invited, nobody. auto: open on loopback, else invite."
    )
    secret: SecretStr = Field(SecretStr(""), description="Signs tokens, 32 characters or more; one is made when empty.")
    secret_file: Path | None = Field(None, description="Where the secret is read from instead.")
    access_minutes: float = Field(15.0, gt=0, le=1440, description="How long an access token is good.")
    refresh_days: float = Field(30.0, gt=0, le=400, description="How long an unused session lives.")
    password_min: int = Field(8, ge=8, le=128, description="Shortest password taken.")
    hashing: int = Field(2, ge=1, le=64, description="Passwords hashed at a time.")
    login_attempts: int = Field(10, ge=1, description="Failed logins an account gets in 15 minutes.")
    address_attempts: int = Field(100, ge=1, description="Failed logins an address gets in 15 minutes.")
    invitation_days: float = Field(7.0, gt=0, description="How long an invitation is good.")
    reset_hours: float = Field(24.0, gt=0, description="How long a link to a new password is good.")
    oidc: dict[str, OIDC] = Field(default_factory=dict, description="Login by other providers, by name.")
    smtp: SMTP = SMTP()


class Limits(Section):
    answer_tokens: int = Field(
        4096,
        ge=1,
        description="Longest answer of a call that names no max_tokens, where a token or money limit counts.",
    )
    wait: float = Field(60.0, ge=0, description="Longest wait for room that `Prefer: wait=N` may ask for, seconds.")
    waiting: int = Field(1000, ge=0, description="Calls that may wait for room at a time; more are refused.")
    ledger_days: int = Field(400, ge=32, description="Days each single model call is kept; sums by day stay for good.")


class Inference(Section):
    model: Path | None = Field(None, description="The GGUF file that the role `inference` answers with.")
    name: str = Field("", max_length=200, description="What callers call that model; empty takes the file's name.")
    key: SecretStr = Field(SecretStr(""), description="What callers must know; 16 characters or more.")
    embeddings: bool = Field(True, description="Serve knowledge.embedding's model at /v1/embeddings, too.")
    slots: int = Field(4, ge=1, le=256, description="Answers written at a time; llama.cpp batches them.")
    context: int = Field(8192, ge=256, le=10_000_000, description="Tokens of all running answers together.")
    threads: int = Field(
        default_factory=lambda: max(1, (os.cpu_count() or 2) // 2), ge=1, le=256, description="Threads of llama.cpp."
    )
    queue: int = Field(64, ge=0, le=100_000, description="Calls that may wait for a slot; more are refused.")
    queue_wait: float = Field(60.0, ge=0, description="Seconds a call may wait for a slot.")
    max_body_bytes: int = Field(32 * MB, ge=KB, description="Longest request.")


class Web(Section):
    public_url: str = Field(
        "", description="Where people reach it, such as https://ai.example.org; for links in mails."
    )
    trusted_proxies: tuple[str, ...] = Field(
        (), description="Addresses or networks whose X-Forwarded-For and -Proto are believed."
    )
    hosts: tuple[str, ...] = Field((), description="Further Host names accepted in local mode.")
    cors_origins: tuple[str, ...] = Field((), description="Other origins whose pages may call the API.")
    docs: bool = Field(True, description="Serve /docs and /openapi.json.")
    max_json_bytes: int = Field(32 * MB, ge=KB, description="Largest body that is not an upload.")
    max_streams: int = Field(10_000, ge=1, description="Open streams; more are refused with Retry-After.")
    shutdown_delay: float = Field(
        0.0, ge=0, le=600, description="Seconds `/ready` says no on SIGTERM before nobody is let in any more."
    )
    shutdown_grace: float = Field(10.0, ge=0, description="Seconds open streams get to end.")

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        for each in given:
            ip_network(each, strict=False)  # says itself what is wrong
        return given


class Logs(Section):
    level: Literal["debug", "info", "warning", "error"] = Field("info", description="What is worth a line.")
    format: Literal["auto", "json", "text"] = Field("auto", description="auto: text on a terminal.")


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="TERRACE_", env_nested_delimiter="__", frozen=True, extra="ignore", toml_file="terrace.toml"
    )

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    data: Annotated[Path, AfterValidator(lambda path: path.expanduser().absolute())] = Field(
        default_factory=lambda: user_data_path("terrace"), description="The folder with everything it keeps."
    )
    insecure: bool = Field(False, description="Nobody logs in beyond loopback either, until there is an account.")

    role: Literal["all", "api", "worker", "scheduler", "inference"] = Field(
        "all", description="What this process does of it all."
    )
    storage: Storage = Storage()
    redis: Redis = Redis()
    jobs: Jobs = Jobs()
    models: Models = Models()
    knowledge: Knowledge = Knowledge()
    chat: Chat = Chat()
    cache: Cache = Cache()
    outbound: Outbound = Outbound()
    webhooks: Webhooks = Webhooks()
    schedules: Schedules = Schedules()
    analysis: Analysis = Analysis()
    campaigns: Campaigns = Campaigns()
    batches: Batches = Batches()
    accounts: Accounts = Accounts()
    limits: Limits = Limits()
    inference: Inference = Inference()
    web: Web = Web()
    logs: Logs = Logs()

    @field_validator("data")
    @classmethod
    def _absolute(cls, data: Path) -> Path:
        """The same folder wherever the command is given from."""
        return data.expanduser().absolute()

    @cached_property
    def database_url(self) -> str:
        return self.storage.url or f"sqlite:///{self.data / 'terrace.db'}"

    @classmethod
    def load(cls, **given: Any) -> Self:
        """The settings in force; `given` overrides the rest. Raises Invalid naming each one that is wrong."""
        try:
            return cls(**given)
        except ValidationError as error:
            wrong = "; ".join(
                f"TERRACE_{'__'.join(str(part).upper() for part in each['loc'])}: "
                + ("there is no such setting" if each["type"] == "extra_forbidden" else each["msg"])
                for each in error.errors()
            )
            raise Invalid(f"The settings are wrong. {wrong}", code="bad_settings") from error
        except SettingsError as error:
            raise Invalid(
                f"The settings cannot be read: {error}. Lists are written as JSON, such as "
                """TERRACE_WEB__TRUSTED_PROXIES='["10.0.0.1"]'.""",
                code="bad_settings",
            ) from error
        except TOMLDecodeError as error:
            raise Invalid(f"terrace.toml cannot be read: {error}", code="bad_settings") from error

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)
