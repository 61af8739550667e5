"""The dag run as a sync's job: its name, and what has become of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import get_current_context

if TYPE_CHECKING:
    from airflow.sdk import Context

    from labelport.syncing import JobState


def job_of(context: Context) -> str:
    """``dag id/run id``: who runs a sync, and the fence of all it writes."""
    return f"{context['ti'].dag_id}/{context['run_id']}"


def current_job() -> str:
    """The job of the task this is called in; outside of one, ``hook``."""
    try:
        return job_of(get_current_context())
    except RuntimeError:
        return "hook"


def job_state(context: Context, job: str) -> JobState:
    """What Airflow says of the dag run that *job* names; unknown for jobs of other kinds.

    Counts runs rather than asking for the state of one, which is an error for a removed run.
    """
    from labelport.syncing import JobState

    dag_id, separator, run_id = job.partition("/")
    if not separator or " " in dag_id:
        return JobState.UNKNOWN
    count = context["ti"].get_dr_count
    if count(dag_id=dag_id, run_ids=[run_id], states=["queued", "running"]):
        return JobState.ALIVE
    return JobState.ENDED if count(dag_id=dag_id, run_ids=[run_id]) else JobState.MISSING
