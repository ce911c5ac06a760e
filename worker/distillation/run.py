"""One run of a job: its stages in order, its checkpoints, and its results."""

import time
from dataclasses import replace
from functools import partial
from typing import Any

from worker.distillation.budget.limits import require_planned
from worker.distillation.distributed.ranks import ALONE, Ranks, device_of
from worker.distillation.errors import Collapsed
from worker.distillation.job import Job
from worker.distillation.precision import use_fast_kernels
from worker.distillation.procedure import Stage, StageResult
from worker.distillation.process.event_pipe import Channel
from worker.distillation.process.heartbeat import heard_by
from worker.distillation.randomness import random_state, seed_all, seed_for
from worker.distillation.reporting.artifacts import Artifacts
from worker.distillation.reporting.environment import environment
from worker.distillation.reporting.phases import PhaseTimes
from worker.distillation.reporting.progress import Progress
from worker.distillation.reporting.run_end import RunEnd
from worker.distillation.reporting.run_previews import RunPreviews
from worker.distillation.teaching.cached_answers import answers_part
from worker.distillation.teaching.quick_teacher import ignored
from worker.distillation.trainer.checkpoint import Checkpoints, Manifest
from worker.distillation.trainer.checkpoint_timer import CheckpointTimer
from worker.distillation.trainer.deadline import STOPPED_EARLY, Deadline, ships_from, stopped_early
from worker.distillation.trainer.inputs import load_inputs
from worker.distillation.trainer.lineage import Lineage
from worker.distillation.trainer.network_parts import freeze_averages, freeze_networks, freeze_snapshots
from worker.distillation.trainer.restarts import restart
from worker.distillation.trainer.resume import Resumed, read_checkpoint, restore_stage
from worker.distillation.trainer.run_state import RunState
from worker.distillation.trainer.stage_context import StageContext
from worker.distillation.trainer.stage_metrics import measure_stage
from worker.distillation.trainer.stage_run import StageRun
from worker.distillation.trainer.teacher_check import check_teacher, with_checked_input
from worker.distillation.trainer.weight_selection import WeightSelection
from worker.distillation.trainer.worker_requests import Stopped, WorkerRequests


class Run:
    """A run, or one rank's part in it. `execute` returns a summary, or raises EngineError or Stopped.

    All ranks take the same steps and have the same state. Rank 0 measures, saves and exports, and decides when to stop.
    """

    def __init__(self, job: Job, channel: Channel, ranks: Ranks = ALONE):
        require_planned(job.spec["student"])
        self._began = time.monotonic()
        self.channel = channel
        self.ranks = ranks
        self.device = device_of(ranks.rank, ranks.size, job.device())
        use_fast_kernels(self.device, bool(job.values.get("tf32", True)))
        self.training = job.training
        self.requests = WorkerRequests(channel, ranks)
        self.timer = CheckpointTimer(job.values.get("checkpoint_seconds", 30))
        self.checkpoints = Checkpoints(job.folder / "checkpoints", partial(_say_checkpoint, channel), ranks)
        self._resumed = read_checkpoint(job.path("resume"), self.checkpoints)
        self.state = self._resumed.state if self._resumed else RunState()
        self.phases = PhaseTimes(channel, self.state.phase_seconds)
        self._use(with_checked_input(job, self.state.teacher_check))

    def _use(self, job: Job) -> None:
        """Make what is made of the job."""
        self.job = job
        self.lineage = Lineage(job, self.checkpoints, self.device, self.state.history)
        self.progress = Progress(self.channel, self.lineage, self.state)
        self.previews = RunPreviews(job, self.channel)
        self.artifacts = Artifacts(job, self.channel, self.device)

    def execute(self) -> dict[str, Any]:
        """Run all stages, evaluate and export; return the summary of the report."""
        with heard_by(self.requests.pulse):
            resumed = self._begin()
            while (stage := self._next_stage(resumed)) is not None:
                self._run_stage(stage, resumed)
                resumed = None
            return self._finish() if self.ranks.leads else {}

    def seconds(self) -> float:
        """Time spent in this job, including earlier attempts up to their checkpoint."""
        return self.state.seconds + time.monotonic() - self._began

    def _begin(self) -> Resumed | None:
        """Load the images, and check the teacher on them; return the checkpoint to resume from, if there is one."""
        self.inputs = load_inputs(self.job, self.device, evaluates=self.ranks.leads)
        resumed = self._resumed
        self._resumed = None  # its parts are large
        self.channel.say("started", **environment(self.device), resumed_from=resumed and resumed.step)
        if resumed is None:
            self._check_teacher()
        self.context = StageContext.of(self.job, self.inputs.dataset, self.device, self.ranks)
        self.selection = WeightSelection(self.lineage, self.inputs.validation)
        used = self.job.values.get("seconds_used")
        self.deadline = Deadline(self.training.time_limit_minutes, self.state.seconds if used is None else used)
        return resumed

    def _check_teacher(self) -> None:
        """Measure the teacher; in a job of the contract `auto` perhaps with another normalisation from now on."""
        if self.ranks.leads:
            for place, why in (self.job.spec.get("reasons") or {}).items():
                self.channel.log(f"{place}: {why}")
            if self.lineage.teacher is not None and self.inputs.dataset is not None:
                self.phases.enter("checking_teacher")
            found = check_teacher(self.job, self.lineage.teacher, self.inputs.dataset, self.channel.log)
            self.state.teacher_check = found
            for words in (found or {}).get("warnings", ()):
                self.progress.warn(words)
        if self.job.spec.get("contract") == "auto":
            self.state.teacher_check = self.ranks.broadcast({"found": self.state.teacher_check})["found"]
            checked = with_checked_input(self.job, self.state.teacher_check)
            if checked is not self.job:
                self._use(checked)
                self.inputs = load_inputs(self.job, self.device, evaluates=self.ranks.leads)

    def _next_stage(self, resumed: Resumed | None) -> Stage | None:
        """The next stage to run; after training has stopped early, only the checkpoint's stage."""
        if self.state.stopped_early is not None and resumed is None:
            return None
        return self.lineage.next()

    def _run_stage(self, stage: Stage, resumed: Resumed | None) -> None:
        run = self._begin_stage(stage, resumed)
        while (collapsed := self._train_or_collapse(run)) is not None:
            try:
                self.progress.warn(restart(run, collapsed, self.state))
            except Collapsed as error:
                if not stage.may_fail:
                    raise
                self.source = run.source
                self._give_up(run, error)
                return
            del run  # free its networks and images before new ones are built
            run = self._begin_stage(stage, None)
        self.source = run.source
        if run.finished or ships_from(run, self.lineage, self.training.time_limit_minutes):
            # save, so that no training is repeated if the run is interrupted during evaluation or export
            if self.ranks.agree(
                self.timer.due_at_end(self.state.done(run.number, run.generator_steps_done, run.finished))
            ):
                self._checkpoint(run)
            freeze_averages(run, self.checkpoints)
            run.finish()
            self._end_stage(run)

    def _begin_stage(self, stage: Stage, resumed: Resumed | None) -> StageRun:
        """A new stage, or the stage of a checkpoint with its state restored."""
        seed_all(seed_for(self.training.seed, stage.seeded_by, "build"))
        run = StageRun(
            stage,
            networks={name: self.lineage.initial(stage, name) for name in stage.members},
            teacher=self.lineage.teacher_of(stage),
            context=self.context.for_stage(stage.training, self.state.restarts),
            entries={name: self.lineage.entries(stage, name) for name in stage.members},
            recipes=resumed.recipes if resumed is not None else None,
        )
        if resumed is not None:
            restore_stage(run, resumed, self.ranks, self.training.seed)
        else:
            run.prepare()
        run.cache_answers(self.checkpoints)
        if run.teacher is not None and not run.logits_alone and (words := ignored(run.training)):
            self.channel.log(f"stage {stage.name!r}: {words}")
        self._enter_phase(run)
        return run

    def _train_or_collapse(self, run: StageRun) -> Collapsed | None:
        try:
            self._train(run)
        except Collapsed as error:
            return error.with_traceback(None)  # the traceback would keep the whole stage in memory
        return None

    def _train(self, run: StageRun) -> None:
        """Take steps until the stage is finished or the time limit is reached."""
        while not run.finished and self.state.stopped_early is None:
            if self.ranks.agree(self.deadline.passed()):
                self.state.stopped_early = stopped_early(run, self.deadline.minutes)
                self.channel.log(STOPPED_EARLY.format(**self.state.stopped_early), "warning")
                return
            before = run.number
            run.advance()
            if run.number > before and (run.finished or run.number % run.steps_per_epoch == 0):
                self._end_epoch(run)
            if self.progress.due(run):
                self.progress.report(run)
            self.after_step(run)

    def after_step(self, run: StageRun) -> None:
        """Enter the next phase, save a checkpoint, or stop, if one of these is due.

        Raises:
            Stopped: the worker requested a stop.
        """
        if run.generator_steps_first and run.generator_steps_done == run.generator_steps_first and run.number == 0:
            self._enter_phase(run)
        action = self.requests.action(checkpoint_due=self.timer.due())
        if action is not None:
            self._checkpoint(run, wait=action == "drain")
        if action == "drain":
            raise Stopped("drain")

    def _enter_phase(self, run: StageRun) -> None:
        synthesising = run.generator_steps_done < run.generator_steps_first
        self.phases.enter("synthesising" if synthesising else run.stage.phase, run.stage.name)

    def _end_epoch(self, run: StageRun) -> None:
        """Measure and save previews after an epoch, also after a partial epoch at the end of a stage."""
        epoch = -(-run.number // run.steps_per_epoch)
        if epoch in run.stage.snapshots:
            freeze_snapshots(run, epoch, self.checkpoints)
        if not self.ranks.leads:
            return
        metrics = self.selection.measure(run)
        if metrics is not None:
            self.progress.validation(run, metrics)
            self.state.best = self.selection.better(run, metrics, epoch, self.state.best)
        self.previews.after_epoch(run.source, self.state.steps_before + run.number)

    def _end_stage(self, run: StageRun) -> None:
        freeze_networks(run, self.checkpoints)
        self.checkpoints.drop(answers_part(run.stage.name))
        measured = measure_stage(run, self.lineage, self.inputs.validation) if self.ranks.leads else {}
        metrics = run.last | self.ranks.broadcast(measured)
        self._add_to_history(run, metrics, run.stage.snapshots)

    def _give_up(self, run: StageRun, error: Collapsed) -> None:
        """End a stage that may fail without metrics and networks."""
        self.channel.log(f"stage {run.stage.name!r} was given up: {error.message}", "warning")
        self._add_to_history(run, {})

    def _add_to_history(self, run: StageRun, metrics: dict[str, float], snapshots: tuple[int, ...] = ()) -> None:
        result = StageResult(name=run.stage.name, steps=run.number, metrics=metrics, snapshots=snapshots)
        self.state.history.append(result)
        self.state.steps_before += run.number
        self.state.generator_steps_before += run.generator_steps_done
        if run.stage.may_fail:
            self.state.restarts = 0  # what a trial learned of its own images is not that of another source

    def _checkpoint(self, run: StageRun, wait: bool = False) -> None:
        """Save the stage and the run's state; with `wait`, return when they are on disk."""
        done = self.state.done(run.number, run.generator_steps_done, run.finished)
        with self.timer.saving(done):
            parts = run.state_dict()
            state = replace(
                self.state,
                seconds=self.seconds(),
                phase_seconds=self.phases.seconds(),
                random_states=self.ranks.collect(random_state(self.device)),
            )
            if self.ranks.leads:
                step = self.state.steps_before + run.number
                self.checkpoints.save(step, parts | state.state_dict(), wait=wait, done=done)

    def _finish(self) -> dict[str, Any]:
        """Measure, export and report the student; return the summary of the report."""
        end = RunEnd(
            lineage=self.lineage,
            state=self.state,
            selection=self.selection,
            inputs=self.inputs,
            source=self.source,
            phases=self.phases,
            previews=self.previews,
            artifacts=self.artifacts,
            seconds=self.seconds,
            warn=self.progress.warn,
        )
        return end.finish()


def _say_checkpoint(channel: Channel, manifest: Manifest) -> None:
    channel.say("checkpoint", manifest=manifest)
