"""Operators against a stand-in: what they ask, what they wait for, how they fail."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException, TaskDeferred
from airflow.triggers.base import TriggerEvent
from terrace_airflow.operators import CheckQuality, DropRetiredGenerations, Reembed, RunSources, UploadFolder
from terrace_airflow.triggers import JobsTrigger


class Instance:
    def __init__(self) -> None:
        self.pushed: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = value


def job(id: str, state: str = "succeeded", error: str | None = None) -> dict[str, Any]:
    return {"id": id, "kind": "any", "state": state, "error": {"message": error} if error else None}


def deferred(operator: Any, context: Any = None) -> JobsTrigger:
    with pytest.raises(TaskDeferred) as raised:
        operator.execute(context or {"ti": Instance()})
    assert raised.value.method_name == "ended"
    trigger = raised.value.trigger
    assert isinstance(trigger, JobsTrigger)
    return trigger


def fired(trigger: JobsTrigger) -> Any:
    async def first() -> TriggerEvent:
        async for event in trigger.run():
            return event
        raise AssertionError("it never fires")

    return asyncio.run(first()).payload


# -- waiting


def test_a_trigger_fires_when_all_have_ended(terrace: Any) -> None:
    terrace.answer("GET", "/api/jobs/job_1", (200, job("job_1", "running")), (200, job("job_1")))
    terrace.answer("GET", "/api/jobs/job_2", (200, job("job_2", "failed", "It is encrypted.")))
    told = fired(JobsTrigger("terrace_default", ["job_1", "job_2"], poll=0.01))
    assert [each["state"] for each in told["jobs"]] == ["succeeded", "failed"]
    assert told["jobs"][1]["error"] == "It is encrypted."
    assert {each[2] for each in terrace.asked} == {"Bearer tk_secret"}


def test_a_trigger_outlives_a_terrace_that_is_away_for_a_while(terrace: Any) -> None:
    terrace.answer(
        "GET", "/api/jobs/job_1", (503, {"detail": "Away."}), (429, {"detail": "Later."}), (200, job("job_1"))
    )
    assert fired(JobsTrigger("terrace_default", ["job_1"], poll=0.01))["jobs"][0]["state"] == "succeeded"


def test_a_trigger_gives_up_in_words(terrace: Any) -> None:
    assert fired(JobsTrigger("terrace_default", ["job_9"], poll=0.01)) == {"error": "There is no such thing."}
    terrace.answer("GET", "/api/jobs/job_1", (503, {"detail": "Away."}))
    assert fired(JobsTrigger("terrace_default", ["job_1"], poll=0.01, patience=0.0)) == {"error": "Away."}


def test_what_is_serialized_rebuilds_it_and_holds_no_secret(terrace: Any) -> None:
    path, values = JobsTrigger("terrace_default", ["job_1"], poll=2.0).serialize()
    assert path == "terrace_airflow.triggers.JobsTrigger"
    assert JobsTrigger(**values).serialize() == (path, values)
    assert "tk_secret" not in str(values)


# -- operators


def test_sources_are_run_and_their_reports_returned(terrace: Any) -> None:
    page = {"items": [{"id": "src_1", "name": "Wiki", "report": {"added": 3}}], "next": None}
    terrace.answer("GET", "/api/sources", (200, page))
    terrace.answer("POST", "/api/sources/src_1/run", (202, {"job_id": "job_1"}))
    operator = RunSources(task_id="sources")
    assert deferred(operator).job_ids == ["job_1"]
    assert operator.ended({}, {"jobs": [job("job_1")]}) == {"Wiki": {"added": 3}}


def test_sources_that_are_not_there(terrace: Any) -> None:
    terrace.answer("GET", "/api/sources", (200, {"items": [], "next": None}))
    with pytest.raises(AirflowSkipException):
        RunSources(task_id="sources").execute({})
    with pytest.raises(AirflowFailException, match="Wiki"):
        RunSources(task_id="sources", sources=["Wiki"]).execute({})


def test_a_folder_is_sent_in_parts(terrace: Any, tmp_path: Path) -> None:
    for number in range(60):
        (tmp_path / f"{number}.txt").write_text(f"Text {number}")
    new = {"name": "a", "document": {"duplicate": False}, "error": None}
    known = {"name": "b", "document": {"duplicate": True}, "error": None}
    bad = {"name": "c", "document": None, "error": {"message": "It is empty."}}
    terrace.answer(
        "POST", "/api/documents/batch-upload",
        (202, {"job_id": "job_1", "documents": [new, known]}), (202, {"job_id": None, "documents": [bad]}),
    )  # fmt: skip
    context = {"ti": Instance()}
    operator = UploadFolder(task_id="folder", folder=str(tmp_path), collection="In", tags=("x", "y"))
    assert deferred(operator, context).job_ids == ["job_1"]
    assert context["ti"].pushed == {"counts": {"new": 1, "known": 1, "refused": 1}}
    [first, second] = [each[3] for each in terrace.asked]
    assert (first.count(b'name="files"'), second.count(b'name="files"')) == (50, 10)
    assert b"In" in first
    assert b"x,y" in first


def test_an_empty_folder_is_skipped(terrace: Any, tmp_path: Path) -> None:
    with pytest.raises(AirflowSkipException):
        UploadFolder(task_id="folder", folder=str(tmp_path)).execute({})


def test_a_refusal_is_not_tried_again(terrace: Any) -> None:
    terrace.answer("POST", "/api/index/generations", (403, {"detail": "Only an operator may.", "code": "denied"}))
    with pytest.raises(AirflowFailException, match="Only an operator may"):
        Reembed(task_id="reembed").execute({})


def test_a_retry_takes_up_the_generation_that_is_being_made(terrace: Any) -> None:
    terrace.answer("POST", "/api/index/generations", (409, {"detail": "One is made.", "code": "generation_building"}))
    made = {"id": "gen_2", "key": "m#2", "state": "building", "job_id": "job_7", "vectors": 1, "chunks": 2, "note": "",
            "comparison": None}  # fmt: skip
    terrace.answer(
        "GET", "/api/index/generations", (200, {"items": [made]}), (200, {"items": [made | {"state": "ready"}]})
    )
    operator = Reembed(task_id="reembed", must_serve=True)
    assert deferred(operator).job_ids == ["job_7"]
    with pytest.raises(AirflowFailException, match="does not serve"):
        operator.ended({}, {"jobs": [job("job_7")]})


def test_the_latest_retired_generation_is_kept(terrace: Any) -> None:
    rows = [
        {"id": f"gen_{at}", "key": f"m#{at}", "state": "retired", "switched_at": f"2026-01-0{at}T00:00:00Z"}
        for at in (2, 1, 3)
    ]
    terrace.answer("GET", "/api/index/generations", (200, {"items": [*rows, {"id": "gen_4", "state": "serving"}]}))
    terrace.answer("DELETE", "/api/index/generations/gen_1", (204, None))
    terrace.answer("DELETE", "/api/index/generations/gen_2", (204, None))
    assert DropRetiredGenerations(task_id="make_room").execute({}) == ["m#1", "m#2"]
    assert DropRetiredGenerations(task_id="keep_more", keep=4).execute({}) == []


def test_quality_beyond_its_bounds_fails(terrace: Any) -> None:
    report = {"findings": [{"kind": "stale", "count": 4}], "documents": 9, "chunks": 90, "vectors": 90}
    terrace.answer("POST", "/api/index/health/check", (202, {"id": "job_1"}))
    terrace.answer("GET", "/api/index/health", (200, {"report": report}))
    assert deferred(CheckQuality(task_id="quality")).job_ids == ["job_1"]
    good = CheckQuality(task_id="good", bounds={"stale": 4, "duplicate": 0}).ended({}, {"jobs": [job("job_1")]})
    assert good == {"stale": 4, "documents": 9, "chunks": 90, "vectors": 90}
    with pytest.raises(AirflowFailException, match=r"stale 4 \(at most 3\)"):
        CheckQuality(task_id="bad", bounds={"stale": 3}).ended({}, {"jobs": [job("job_1")]})


def test_a_job_that_failed_fails_the_task(terrace: Any) -> None:
    failed = {"id": "job_1", "kind": "any", "state": "failed", "error": "The site is away."}
    with pytest.raises(AirflowException, match="The site is away"):
        CheckQuality(task_id="quality").ended({}, {"jobs": [failed]})
    with pytest.raises(AirflowException, match="Away"):
        CheckQuality(task_id="quality").ended({}, {"error": "Away."})
