"""Operators that start work in Terrace and give their worker back until its jobs have ended.

A retry is harmless: Terrace answers what is under way already (a run of a source, a generation, a check), and the same
file twice is one document.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from terrace_airflow.answers import TerraceRefused
from terrace_airflow.hook import TerraceHook
from terrace_airflow.triggers import JobsTrigger

FILES_AT_ONCE = 50


class TerraceOperator(BaseOperator):
    """`start` begins the work and names its jobs; `result` is what the task returns once they have ended.

    `wait_for` bounds the wait; Terrace works on when it is over, and a retry waits again.
    """

    template_fields: Sequence[str] = ()
    ui_color = "#dbe9f4"

    def __init__(
        self,
        *,
        terrace_conn_id: str = TerraceHook.default_conn_name,
        wait_for: timedelta = timedelta(hours=6),
        poll: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.terrace_conn_id = terrace_conn_id
        self.wait_for = wait_for
        self.poll = poll

    @property
    def hook(self) -> TerraceHook:
        return TerraceHook(self.terrace_conn_id)

    @abstractmethod
    def start(self, context: Any) -> list[str]:
        """Begin; the ids of the jobs to wait for."""

    def result(self, jobs: Sequence[Mapping[str, Any]]) -> Any:
        return {"jobs": len(jobs)}

    def execute(self, context: Any) -> Any:
        try:
            job_ids = self.start(context)
        except TerraceRefused as error:
            raise AirflowFailException(str(error)) from error  # a retry would be refused as well
        if not job_ids:
            return self.result([])
        self.log.info("Waiting for %s", ", ".join(job_ids))
        trigger = JobsTrigger(self.terrace_conn_id, job_ids, self.poll)
        return self.defer(trigger=trigger, method_name="ended", timeout=self.wait_for)

    def ended(self, context: Any, event: Mapping[str, Any]) -> Any:
        if "error" in event:
            raise AirflowException(str(event["error"]))
        jobs: Sequence[Mapping[str, Any]] = event["jobs"]
        if bad := [job for job in jobs if job["state"] != "succeeded"]:
            told = "; ".join(f"{job['id']}: {job['error'] or job['state']}" for job in bad[:10])
            raise AirflowException(f"{len(bad)} of {len(jobs)} jobs did not succeed. {told}")
        return self.result(jobs)


class RunSources(TerraceOperator):
    """Have Terrace look at its sources (folders, sites, feeds) now: all of them, or those of these ids or names.

    Returns `{name: report}`: what was added, changed, removed and failed.
    """

    template_fields = ("sources",)

    def __init__(self, *, sources: Sequence[str] = (), **options: Any) -> None:
        super().__init__(**options)
        self.sources = sources

    def start(self, context: Any) -> list[str]:
        wanted = self._wanted()
        if not wanted:
            raise AirflowSkipException("Terrace has no sources to look at.")
        return [str(self.hook.call("POST", f"/api/sources/{each['id']}/run")["job_id"]) for each in wanted]

    def result(self, jobs: Sequence[Mapping[str, Any]]) -> Any:
        return {each["name"]: each["report"] for each in self._wanted()}

    def _wanted(self) -> list[Mapping[str, Any]]:
        every = list(self.hook.items("/api/sources"))
        if not self.sources:
            return every
        found = [each for each in every if {each["id"], each["name"]} & set(self.sources)]
        if missing := set(self.sources) - {name for each in found for name in (each["id"], each["name"])}:
            raise AirflowFailException(f"Terrace has no source called {', '.join(sorted(missing))}.")
        return found


class UploadFolder(TerraceOperator):
    """Send the files of a folder that the worker sees; what Terrace has already is not read again.

    Returns how many are new, were there, and were refused; refused ones fail the task only if `strict`.
    """

    template_fields = ("folder", "collection")

    def __init__(
        self,
        *,
        folder: str,
        pattern: str = "**/*",
        collection: str = "default",
        tags: Sequence[str] = (),
        strict: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.folder = folder
        self.pattern = pattern
        self.collection = collection
        self.tags = tags
        self.strict = strict

    def start(self, context: Any) -> list[str]:
        files = sorted(path for path in Path(self.folder).glob(self.pattern) if path.is_file())
        if not files:
            raise AirflowSkipException(f"There are no files in {self.folder}.")
        jobs: list[str] = []
        counts = {"new": 0, "known": 0, "refused": 0}
        for at in range(0, len(files), FILES_AT_ONCE):
            told = self._send(files[at : at + FILES_AT_ONCE])
            jobs += [told["job_id"]] if told["job_id"] else []
            for each in told["documents"]:
                self._count(each, counts)
        self.log.info("%(new)d new, %(known)d known, %(refused)d refused", counts)
        if counts["refused"] and self.strict:
            raise AirflowFailException(f"{counts['refused']} files were refused; the log names them.")
        context["ti"].xcom_push(key="counts", value=counts)
        return jobs

    def result(self, jobs: Sequence[Mapping[str, Any]]) -> Any:
        return {"batches": len(jobs)}

    def _send(self, files: Sequence[Path]) -> Mapping[str, Any]:
        with ExitStack() as stack:
            parts = [("files", (path.name, stack.enter_context(path.open("rb")))) for path in files]
            data = {"collection": self.collection, "tags": ",".join(self.tags)}
            told: Mapping[str, Any] = self.hook.call("POST", "/api/documents/batch-upload", data=data, files=parts)
            return told

    def _count(self, each: Mapping[str, Any], counts: dict[str, int]) -> None:
        if each.get("error"):
            self.log.warning("%s: %s", each["name"], each["error"]["message"])
            counts["refused"] += 1
        else:
            counts["known" if each["document"]["duplicate"] else "new"] += 1


class Reembed(TerraceOperator):
    """Make all vectors anew as a generation beside the one that serves; it takes its place when it is alike enough.

    `bound`: of the ten best passages of recent questions, the share both must find. Returns the generation.
    `must_serve` fails the task when it does not take its place.
    """

    def __init__(self, *, bound: float = 0.5, must_serve: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.bound = bound
        self.must_serve = must_serve

    def start(self, context: Any) -> list[str]:
        try:
            made = self.hook.call("POST", "/api/index/generations", json={"automatic": True, "bound": self.bound})
        except TerraceRefused as error:
            if error.code != "generation_building":
                raise
            made = next(each for each in self._generations() if each["state"] == "building")  # this one's earlier try
        return [str(made["job_id"])]

    def result(self, jobs: Sequence[Mapping[str, Any]]) -> Any:
        mine = next(each for each in self._generations() if each["job_id"] == jobs[0]["id"])
        if self.must_serve and mine["state"] != "serving":
            raise AirflowFailException(f"The new generation does not serve: {mine['note']}")
        return {name: mine[name] for name in ("id", "key", "state", "vectors", "chunks", "note", "comparison")}

    def _generations(self) -> list[Mapping[str, Any]]:
        found: list[Mapping[str, Any]] = self.hook.call("GET", "/api/index/generations")["items"]
        return found


class DropRetiredGenerations(TerraceOperator):
    """Vectors of generations that served once: all but the latest `keep`. Returns the keys of those that went."""

    def __init__(self, *, keep: int = 1, **options: Any) -> None:
        super().__init__(**options)
        self.keep = keep
        self._gone: list[str] = []

    def start(self, context: Any) -> list[str]:
        every = self.hook.call("GET", "/api/index/generations")["items"]
        retired = sorted(
            (each for each in every if each["state"] == "retired"), key=lambda each: each["switched_at"] or ""
        )
        for each in retired[: max(0, len(retired) - self.keep)]:
            self.hook.call("DELETE", f"/api/index/generations/{each['id']}")
            self._gone.append(each["key"])
        return []  # nothing to wait for

    def result(self, jobs: Sequence[Mapping[str, Any]]) -> Any:
        return self._gone


class CheckQuality(TerraceOperator):
    """Have Terrace look through its corpus. Returns `{finding: count}`; fails when one is above its bound.

    `bounds` is such as `{"vectors_missing": 0}`, a kind of docs/schedules.md; the others may be of any number.
    """

    template_fields = ("bounds",)

    def __init__(self, *, bounds: Mapping[str, int] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.bounds = dict(bounds or {})

    def start(self, context: Any) -> list[str]:
        return [str(self.hook.call("POST", "/api/index/health/check")["id"])]

    def result(self, jobs: Sequence[Mapping[str, Any]]) -> Any:
        report = self.hook.call("GET", "/api/index/health")["report"]
        counts = {each["kind"]: each["count"] for each in report["findings"]}
        above = {kind: counts[kind] for kind, most in self.bounds.items() if counts.get(kind, 0) > most}
        if above:
            told = ", ".join(f"{kind} {count} (at most {self.bounds[kind]})" for kind, count in above.items())
            raise AirflowFailException(f"The corpus is worse than agreed: {told}.")
        return counts | {"documents": report["documents"], "chunks": report["chunks"], "vectors": report["vectors"]}
