from __future__ import annotations

import os
import socket
import tempfile

import pytest
from qmp_peers import needs_qemu, qemu

from pyvirt.errors import CommandError, JobError, TimedOut
from pyvirt.qmp.event import Event
from pyvirt.qmp.flow import Command, Until
from pyvirt.qmp.jobs import BlockJob, Migration, Progress, migrate, start
from pyvirt.running.wire.job import Job
from pyvirt.running.wire.monitor import Monitor


def play(flow, *answers):
    """Step a flow with answers (exceptions are thrown in); its steps and its result."""
    steps, result = [next(flow)], None
    try:
        for answer in answers:
            thrown = isinstance(answer, Exception)
            steps.append(flow.throw(answer) if thrown else flow.send(answer))
    except StopIteration as end:
        result = end.value
    return steps, result


def listed(status, **more):
    return [{"id": "j", "type": "backup", "status": status, "current-progress": 3,
             "total-progress": 4, **more}]  # fmt: skip


CHANGED = Event("JOB_STATUS_CHANGE", {"id": "j", "status": "?"})
LOOK, DISMISS = Command("query-jobs"), Command("job-dismiss", {"id": "j"})
CHANGE = Until("JOB_STATUS_CHANGE", {"id": "j"}, timeout=1.0)


def test_a_block_job_is_started_with_an_id_and_kept():
    steps, job = play(start("blockdev-backup", {"device": "d", "job-id": "j"}), {})
    assert job == BlockJob("j")
    assert steps == [
        Command("blockdev-backup", {"auto-dismiss": False, "device": "d", "job-id": "j"})
    ]
    flow = start("snapshot-save", {"tag": "t"})
    assert set(next(flow).arguments) == {"tag", "job-id"}


def test_waiting_for_a_block_job_dismisses_it():
    steps, progress = play(
        BlockJob("j").wait(), listed("running"), CHANGED, listed("pending"), TimedOut("x", 1),
        listed("concluded"), {},
    )  # fmt: skip
    assert steps == [LOOK, CHANGE, LOOK, CHANGE, LOOK, DISMISS]
    assert progress == Progress("concluded", 3, 4)
    assert progress.fraction == 0.75


def test_progress_is_told_while_waiting():
    seen = []
    play(BlockJob("j").wait(seen=seen.append), listed("running"), CHANGED, listed("ready"))
    assert [one.status for one in seen] == ["running", "ready"]


def test_waiting_may_end_at_a_status():
    assert play(BlockJob("j").wait("ready"), listed("ready"))[1].status == "ready"


def test_a_block_job_that_failed_raises_and_is_dismissed():
    flow = BlockJob("j").wait()
    next(flow)
    assert flow.send(listed("concluded", error="No space left")) == DISMISS
    with pytest.raises(JobError) as caught:
        flow.send({})
    assert (caught.value.job, caught.value.reason) == ("j", "No space left")
    assert str(caught.value) == "job j failed: No space left"


def test_a_job_that_dismissed_itself_is_known_by_its_event():
    told = Event("BLOCK_JOB_COMPLETED", {"device": "j", "len": 4, "offset": 4})
    assert play(BlockJob("j").wait(), [], told)[1] == Progress("null", 4, 4)
    flow = BlockJob("j").wait()
    next(flow)
    flow.send([])
    with pytest.raises(JobError, match="job j failed: is gone, how it ended was not seen"):
        flow.throw(TimedOut("BLOCK_JOB_COMPLETED", 0))


def test_cancelling_a_job_that_has_just_ended_dismisses_it():
    refused = CommandError("job-cancel", "GenericError", "in state 'concluded'")
    steps, _ = play(BlockJob("j").cancel(), refused, listed("concluded"), listed("concluded"), {})
    assert steps == [Command("job-cancel", {"id": "j"}), LOOK, LOOK, DISMISS]


def test_a_migration_is_followed():
    ram = {"total": 8, "remaining": 2}
    steps, progress = play(
        Migration().wait(), {"status": "active", "ram": ram}, Event("MIGRATION"),
        {"status": "completed", "ram": {"total": 8, "remaining": 0}},
    )  # fmt: skip
    assert steps == [
        Command("query-migrate"), Until("MIGRATION", timeout=1.0), Command("query-migrate")
    ]  # fmt: skip
    assert progress == Progress("completed", 8, 8)
    flow = Migration().wait()
    next(flow)
    with pytest.raises(JobError, match="job migration failed: no route"):
        flow.send({"status": "failed", "error-desc": "no route"})


def test_a_migration_asks_for_events_and_passes_its_descriptor():
    steps, work = play(migrate("there", 7), {}, {}, {})
    assert [step.name for step in steps] == ["migrate-set-capabilities", "getfd", "migrate"]
    assert steps[1] == Command("getfd", {"fdname": "there"}, (7,))
    assert steps[2].arguments == {"uri": "fd:there"}
    assert work == Migration()


# On a real QEMU -----------------------------------------------------------------------------


@pytest.fixture
def monitor():
    with qemu() as (sock, _), Monitor.open(sock, timeout=30) as opened:
        for node in ("a", "b"):
            opened.qmp.blockdev_add(driver="null-co", node_name=node, size=64 << 20)
        yield opened


@needs_qemu
def test_a_real_backup(monitor):
    job = Job.start(monitor, "blockdev-backup", {"device": "a", "target": "b", "sync": "full"})
    seen = []
    progress = job.wait(seen=seen.append, timeout=30)
    assert (progress.status, progress.fraction) == ("concluded", 1.0)
    assert seen[-1] == progress
    assert monitor.qmp.query_jobs() == []
    assert job.progress().status == "null"


@needs_qemu
def test_a_real_mirror_gets_ready_and_completes(monitor):
    job = Job.start(monitor, "blockdev-mirror", {"device": "a", "target": "b", "sync": "full"})
    assert job.wait("ready", timeout=30).status == "ready"
    assert Job.attach(monitor, job.id).progress().fraction == 1.0
    assert job.complete(timeout=30).status == "concluded"
    assert monitor.qmp.query_jobs() == []


@needs_qemu
def test_a_slow_job_is_throttled_and_cancelled(monitor):
    arguments = {"device": "a", "target": "b", "sync": "full", "speed": 1}
    job = Job.start(monitor, "blockdev-backup", arguments)
    job.throttle(2)
    with pytest.raises(TimedOut, match=r"^wait took longer than 0.1 s$"):
        job.wait(timeout=0.1)
    assert job.cancel(timeout=30).status == "concluded"
    assert monitor.qmp.query_jobs() == []


@needs_qemu
def test_a_job_that_dismisses_itself_while_waited_for(monitor):
    arguments = {"device": "a", "target": "b", "sync": "full", "auto-dismiss": True}
    arguments |= {"speed": 40 << 20, "job-id": "own"}
    job = Job.start(monitor, "blockdev-backup", arguments)
    assert job.wait(timeout=30).current == 64 << 20


@needs_qemu
def test_a_job_that_fails(monitor):
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "small")
        os.truncate(os.open(path, os.O_CREAT | os.O_RDWR), 64 << 20)
        file = {"driver": "file", "filename": path}
        full = {"driver": "blkdebug", "node-name": "full", "image": file,
                "inject-error": [{"event": "none", "iotype": "write", "errno": 28}]}  # fmt: skip
        monitor.execute("blockdev-add", full)
        arguments = {"device": "a", "target": "full", "sync": "full"}
        job = Job.start(monitor, "blockdev-backup", arguments)
        with pytest.raises(JobError, match="No space left on device"):
            job.wait(timeout=30)


@needs_qemu
def test_a_real_migration_through_a_descriptor(monitor):
    for node in ("a", "b"):
        monitor.qmp.blockdev_del(node_name=node)
    ours, theirs = socket.socketpair()
    with ours, theirs, qemu("-incoming", "defer") as (sock, _), Monitor.open(sock) as target:
        target.execute("getfd", {"fdname": "in"}, fds=[theirs.fileno()])
        target.execute("migrate-incoming", {"uri": "fd:in"})
        job = Job.migrate(monitor, "out", fd=ours.fileno())
        assert job.wait(timeout=30).status == "completed"
        assert Job.migration(target).wait(timeout=30).status == "completed"
        assert monitor.qmp.query_status()["status"] == "postmigrate"


@needs_qemu
def test_a_migration_that_fails(monitor):
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours, pytest.raises((JobError, CommandError)):
        Job.migrate(monitor, "out", fd=ours.fileno()).wait(timeout=30)
