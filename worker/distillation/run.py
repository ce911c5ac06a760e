"""One run of a job: its stages, its checkpoints, and what it leaves behind."""

import json
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import nn

from worker.distillation import registry
from worker.distillation.data.images import Images
from worker.distillation.distributed.ranks import ALONE, Ranks, device_of
from worker.distillation.errors import CheckpointError, Collapsed, Problem, SpecError
from worker.distillation.introspection.modes import modes_kept
from worker.distillation.job import Job
from worker.distillation.procedure import Stage, StageResult
from worker.distillation.process.event_pipe import Channel
from worker.distillation.process.heartbeat import heard_by
from worker.distillation.randomness import random_state, restore_random_state, seed_all, seed_for
from worker.distillation.reporting.results import Results
from worker.distillation.trainer.appraisal import appraise
from worker.distillation.trainer.checkpoint import Checkpoints, Manifest, state_of
from worker.distillation.trainer.deadline import Deadline, ends_in
from worker.distillation.trainer.lineage import Lineage, average_part, shipping_part
from worker.distillation.trainer.member_run import MemberRun
from worker.distillation.trainer.stage_run import StageRun, Surroundings

REPORTS_A_STAGE = 100
MOST_STEPS_BETWEEN_REPORTS = 50
SHARE_FOR_CHECKPOINTS = 0.01
LEAST_ASSESSED = 50
"""A teacher is not assessed on fewer images."""
ALIVE_SECONDS = 10.0
"""A run that has said nothing for so long says at the next pulse that it is alive."""
WISHES = (None, "checkpoint", "drain", "cancel")
"""What rank 0 may want after a step, of all ranks."""


class Stopped(Exception):
    """The worker asked the run to end; `reason` is `drain` or `cancel`."""

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


class Run:
    """A run, or one rank's part in it. `execute` ends with a summary, or raises EngineError or Stopped.

    All ranks take the same steps and write down the same history. Rank 0 evaluates, saves and exports, and says when to stop.
    """

    def __init__(self, job: Job, channel: Channel, ranks: Ranks = ALONE):
        self.job, self.channel, self.spec, self.ranks = job, channel, job.spec, ranks
        self.device, self.training = device_of(ranks.rank, ranks.size, job.device()), job.training
        self.task = job.task
        self.checkpoints = Checkpoints(job.folder / "checkpoints", self._saved, ranks)
        self.lineage = Lineage(job, self.checkpoints, self.device)
        self.results = Results(job, channel, self.device)
        self.steps_before = self.generator_steps_before = self.restarts = 0
        self.seconds_before = 0.0
        self.best: dict[str, Any] = {}
        self.stopped_early: dict[str, Any] | None = None
        self.warned: list[str] = []
        self._began = self._said_alive = time.monotonic()
        self._next_checkpoint = self._began + job.values.get("checkpoint_seconds", 30)
        self._last_checkpoint, self._checkpointed = self._began, -1

    def execute(self) -> dict[str, Any]:
        """Run all stages, evaluate, export; the summary of the report."""
        with heard_by(self._pulse):
            return self._execute()

    def _execute(self) -> dict[str, Any]:
        self._load_inputs()
        resumed = self._resume()
        used = self.job.values.get("seconds_used")
        self.deadline = Deadline(self.training.time_limit_minutes, self.seconds_before if used is None else used)
        self.channel.say("started", **self.results.environment(), resumed_from=resumed and resumed["step"])
        if not resumed and self.ranks.leads:
            for place, why in (self.spec.get("reasons") or {}).items():
                self.channel.log(f"{place}: {why}")
            self._assess_teacher()
        while self.stopped_early is None and (stage := self.lineage.next()) is not None:
            self._run_stage(stage, resumed["parts"] if resumed else None)
            resumed = None
        return self._finish() if self.ranks.leads else {}

    def seconds(self) -> float:
        """Time spent in this job, earlier attempts up to their checkpoint included."""
        return self.seconds_before + time.monotonic() - self._began

    # Inputs

    def _load_inputs(self) -> None:
        self.dataset = self.job.load_dataset(self.device)
        self.validation: Images | None = None
        if self.training.validation_fraction and not self._labelled:
            words = "holds back images to measure by, and the source reads no real image's label"
            raise SpecError([Problem("/training/validation_fraction", words)])
        if self.dataset is not None and self.training.validation_fraction:
            self.dataset, self.validation = self.dataset.split(self.training.validation_fraction, self.training.seed)
            self.task.check_labels(self.dataset, self.job.classes, "/dataset")
        self.evaluation = self.job.load_evaluation(self.device) if self.ranks.leads else None
        if self.evaluation is not None:
            self.task.check_labels(self.evaluation[0], self.job.classes, "/evaluation/dataset")
        self.teacher = self.lineage.teacher
        self.surroundings = Surroundings(
            self.task,
            self.job.contract,
            self.job.classes,
            self.dataset,
            self.spec["source"],
            self.training,
            self.device,
            self.ranks,
            self.job.files,
        )

    @property
    def _labelled(self) -> bool:
        """Whether the dataset's labels are read at all."""
        source = registry.find("sources", self.spec["source"]["name"], "/source")
        return not (source.ignores_labels or source.synthesises)

    def _assess_teacher(self) -> None:
        """Stop before any training when the teacher knows nothing of the dataset: its contract is probably wrong."""
        if (
            self.teacher is None
            or self.dataset is None
            or not self._labelled
            or not self.task.comparable(self.job.classes, self.dataset)
            or self.job.transfers(self.dataset.class_names)
        ):
            return
        sample = self.dataset.at(
            torch.linspace(0, len(self.dataset) - 1, min(2048, len(self.dataset))).long().to(self.device)
        )
        if len(sample) < LEAST_ASSESSED:
            return
        assessment = self.task.assess_teacher(self.teacher, sample.for_teacher, self.training.batch_size)
        self.channel.log(f"the teacher on training images: {assessment.words}")
        if assessment.chance:
            raise SpecError(
                [Problem("/dataset", f"the teacher is at chance level on it ({assessment.words})")],
                "Check the teacher's mean, std and channels, and that the dataset's labels have the teacher's order.",
            )

    # Stages

    def _run_stage(self, stage: Stage, parts: Mapping[str, Any] | None) -> None:
        run = self._begin_stage(stage, parts)
        while (collapsed := self._train_or_collapse(run)) is not None:
            self._give_up(run, collapsed)
            del run  # its networks and images, before there are others
            run = self._begin_stage(stage, None)
        self.source = run.source
        if run.finished or ends_in(run, self.lineage, self.training.time_limit_minutes):
            self._checkpoint_at_end(run)
            self._freeze_averages(run)
            run.finish()
            self._end_stage(run)

    def _begin_stage(self, stage: Stage, parts: Mapping[str, Any] | None) -> StageRun:
        """A stage at its beginning, or where a checkpoint's parts have it."""
        seed_all(seed_for(self.training.seed, stage.seeded_by, "build"))
        networks = {name: self.lineage.initial(stage, name) for name in stage.members}
        around = replace(self.surroundings.with_training(stage.training), restarts=self.restarts)
        run = StageRun(stage, networks, self.lineage.teacher_of(stage), around)
        if parts is not None:
            self._restore(run, parts)
        else:
            run.prepare()
        self._enter_phase(run)
        return run

    def _train_or_collapse(self, run: StageRun) -> Collapsed | None:
        try:
            self._train(run)
        except Collapsed as error:
            return error.with_traceback(None)  # which would hold on to the whole stage
        return None

    def _give_up(self, run: StageRun, error: Collapsed) -> None:
        """Leave a stage whose images have collapsed, to begin it again; its steps count as taken.

        Raises:
            Collapsed: nothing would be better, or it has been tried as often as the source allows.
        """
        if not error.mendable or self.restarts >= run.source.most_restarts:
            tried = (
                f"; begun again with other weights, {self.restarts} of {run.source.most_restarts} times, it ends so too"
            )
            raise Collapsed(error.message + (tried if self.restarts else ""), error.hint, error.mendable) from error
        self.restarts += 1
        self.steps_before += run.number
        self.generator_steps_before += run.generator_steps_done
        self.best = {} if str(self.best.get("place", "")).startswith(f"{run.stage.name}/") else self.best
        words = f"stage {run.stage.name!r} is begun again, {self.restarts} of at most {run.source.most_restarts} times"
        self._warn(f"{error.message}; {words}, with corrected weights")

    def _restore(self, run: StageRun, parts: Mapping[str, Any]) -> None:
        try:
            run.load_state_dict(parts)
            self._restore_random_state(parts["run"], run)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "loading state_dict" not in str(error):
                raise  # the device's, and not the checkpoint's
            traceback.print_exc()
            raise CheckpointError(f"it does not fit this version of the engine: {error}") from error

    def _restore_random_state(self, saved: Mapping[str, Any], run: StageRun) -> None:
        """This rank's generators; one that is new begins a stream of its own."""
        states = [saved["random"], *saved.get("random_of_others", ())]
        if self.ranks.rank < len(states):
            restore_random_state(states[self.ranks.rank], self.device)
        else:
            seed_all(seed_for(self.training.seed, run.stage.seeded_by, "joined", self.ranks.rank, run.number))

    def _train(self, run: StageRun) -> None:
        """Step until the stage is finished, or time is up."""
        every = max(1, min(MOST_STEPS_BETWEEN_REPORTS, run.total // REPORTS_A_STAGE))
        while not run.finished:
            if self.ranks.agree(self.deadline.passed()):
                self._stop_early(run)
                return
            before = run.number
            run.advance()
            if run.number > before and (run.finished or run.number % run.steps_per_epoch == 0):
                self._end_epoch(run)
            done = run.number + run.generator_steps_done
            if run.finished or done == 1 or done % every == 0:
                self._report(run)
            self._attend(run)

    def _stop_early(self, run: StageRun) -> None:
        self.stopped_early = {
            "reason": "time_limit",
            "minutes": self.training.time_limit_minutes,
            "stage": run.stage.name,
            "step": run.number,
            "steps": run.total,
        }
        words = f"the time limit has passed at step {run.number} of {run.total} of stage {run.stage.name!r}"
        self.channel.log(f"{words}: the training stops, and the student is evaluated as it is", "warning")

    def _end_epoch(self, run: StageRun) -> None:
        """After an epoch, and after a stage that ends within one."""
        epoch = -(-run.number // run.steps_per_epoch)
        if epoch in run.stage.snapshots:
            for name, member in run.members.items():
                self.checkpoints.freeze(f"snapshot/{run.stage.name}/{name}@{epoch}", member.weights())
                self._freeze_shipping(f"{run.stage.name}/{name}@{epoch}", member)
        if not self.ranks.leads:
            return
        self._keep_best(run, epoch)
        self.results.previews(run.source, self.steps_before + run.number)

    def _keep_best(self, run: StageRun, epoch: int) -> None:
        """Evaluate the network that would ship, were this stage the last."""
        place = self.lineage.ships(run.stage)
        stage, _, name = place.partition("/")
        if self.validation is None or stage != run.stage.name or name not in run.members:
            return
        member = run.members[name]
        network = member.deployed()
        with modes_kept(network):
            figures = self.task.evaluate(network, self.validation, self.training.batch_size)
        step = self.steps_before + run.number
        self.channel.say("metrics", step=step, values={f"validation/{name}": value for name, value in figures.items()})
        before = self.best.get("figure") if self.best.get("place") == place else None
        if self.training.selection == "best" and self.task.better(figures[self.task.figure], before):
            self.best = {
                "place": place,
                "epoch": epoch,
                "figure": figures[self.task.figure],
                "weights": member.weights(),
                "objectives": member.shipping(),
            }

    def _end_stage(self, run: StageRun) -> None:
        for name, member in run.members.items():
            self.checkpoints.freeze(f"stage/{run.stage.name}/{name}", state_of(member.network))
            self._freeze_shipping(f"{run.stage.name}/{name}", member)
        metrics = run.last | self.ranks.tell(self._appraise(run) if self.ranks.leads else {})
        self.lineage.history.append(StageResult(run.stage.name, run.number, metrics, run.stage.snapshots))
        self.steps_before += run.number
        self.generator_steps_before += run.generator_steps_done

    def _appraise(self, run: StageRun) -> dict[str, float]:
        if not (run.stage.evaluated or run.stage.compared or run.stage.timed):
            return {}
        networks = {name: member.deployed() for name, member in run.members.items()}
        return appraise(run.stage, networks, self.lineage, self.task, self.validation, self.training.batch_size)

    def _freeze_averages(self, run: StageRun) -> None:
        """Keep the averages of the weights as they are before transforms are baked into the network."""
        for name, member in run.members.items():
            if average := member.averaged():
                self.checkpoints.freeze(average_part(f"{run.stage.name}/{name}"), average)

    def _freeze_shipping(self, place: str, member: MemberRun) -> None:
        if state := member.shipping():
            self.checkpoints.freeze(shipping_part(place), state)

    def _finish(self) -> dict[str, Any]:
        self.results.enter("evaluating")
        shipped = self.lineage.ships()
        student, chosen, other = self._choose(shipped)
        member = self.lineage.member(shipped)
        teacher = self.lineage.teacher_of_job()
        figures = self.results.figures(student.eval(), teacher, self.evaluation, self.source)
        if other is not None:
            beside = self.results.figures(other[1].eval(), teacher, self.evaluation, self.source)
            figures["not_shipped"] = {"checkpoint": other[0], **beside}
        self.results.enter("exporting")
        figures["pictures"] = self.results.portraits(student, teacher, self.source, self.dataset, self.steps_before)
        kept = [
            self.results.keep(name, self.lineage.deployed(place), self.lineage.member(place), self.evaluation)
            for name, place in self.lineage.keeps().items()
        ]
        for name, places in self.lineage.ensembles().items():
            parts = [(self.lineage.deployed(place), self.lineage.member(place)) for place in places]
            kept.append(self.results.keep_ensemble(name, parts, self.evaluation))
        history, told = self.lineage.history, self.lineage.tells()
        more = self.stopped_early, told, self.warned
        return self.results.write(student, member, teacher, figures, chosen, history, self.seconds(), kept, *more)

    def _choose(self, shipped: str) -> tuple[nn.Module, dict[str, str], tuple[str, nn.Module] | None]:
        """The network that ships, which weights these are and why; and the last or averaged one that does not, if any."""
        best = self.best if shipped == self.best.get("place") else {}
        last = self.lineage.deployed(shipped, best.get("weights"), best.get("objectives"))
        chosen = {"checkpoint": "last", "why": "the weights at the end of the training"}
        if best:
            name = self.task.figure.replace("_", " ")
            why = f"best {name} ({best['figure']:.4f}) on {len(self.validation or ())} held-out training images"
            chosen = {"checkpoint": f"epoch {best['epoch']}", "why": why}
        if average_part(shipped) not in self.checkpoints.frozen():
            return last, chosen, None
        average = self.lineage.deployed(shipped, self.checkpoints.thaw(average_part(shipped)))
        if self.training.selection != "average":
            return last, chosen, ("average", average)
        why = f"the running average of the weights, with a decay of {self.training.average_weights:g}"
        return average, {"checkpoint": "average", "why": why}, ("last", last)

    # Between steps

    def _enter_phase(self, run: StageRun) -> None:
        synthesising = run.generator_steps_done < run.generator_steps_first
        self.results.enter("synthesising" if synthesising else run.stage.phase, run.stage.name)

    def _report(self, run: StageRun) -> None:
        step = self.steps_before + run.number
        self.channel.say("metrics", step=step, values=run.metrics())
        self.channel.say(
            "progress",
            stage=run.stage.name,
            step=run.number,
            steps=run.total,
            epoch=run.epoch,
            fraction=self.lineage.fraction(run.fraction),
        )
        for words in run.source.warnings():
            self._warn(f"stage {run.stage.name!r}: {words}")

    def _warn(self, words: str) -> None:
        """Say once what the report is to repeat."""
        if words not in self.warned:
            self.warned.append(words)
            self.channel.log(words, "warning")

    def _attend(self, run: StageRun) -> None:
        """Look whether the phase changes, a checkpoint is due, or the worker wants something."""
        if run.generator_steps_first and run.generator_steps_done == run.generator_steps_first and run.number == 0:
            self._enter_phase(run)
        wish = WISHES[self.ranks.agree(WISHES.index(self._wish()))]
        if wish == "cancel":
            raise Stopped("cancel")
        if wish == "drain":
            self._checkpoint(run, wait=True)
            raise Stopped("drain")
        if wish == "checkpoint":
            self._checkpoint(run)

    def _wish(self) -> str | None:
        due = "checkpoint" if time.monotonic() >= self._next_checkpoint else None
        return self.channel.request or due

    def _pulse(self) -> None:
        """Within long work between the steps: be cancelled at once, and say now and then that the work goes on."""
        if self.channel.request == "cancel":
            raise Stopped("cancel")
        now = time.monotonic()
        if now - self._said_alive >= ALIVE_SECONDS:
            self._said_alive = now
            self.channel.say("alive")

    # Checkpoints

    def _checkpoint_at_end(self, run: StageRun) -> None:
        """Keep a stage's end, so that nothing of its training is repeated if the run ends while it is evaluated or exported.

        A training that is shorter than the least time between checkpoints is not worth one.
        """
        rested = time.monotonic() - self._last_checkpoint >= self.job.values.get("checkpoint_seconds", 30)
        if self.ranks.agree(rested and self._checkpointed != self._done(run)):
            self._checkpoint(run)

    def _done(self, run: StageRun) -> int:
        """What is done of the job: steps, generator steps included, and stages."""
        steps = self.steps_before + run.number + self.generator_steps_before + run.generator_steps_done
        return steps + len(self.lineage.history) + run.finished

    def _checkpoint(self, run: StageRun, wait: bool = False) -> None:
        began = time.monotonic()
        parts = run.state_dict()
        random, *of_others = self.ranks.collect(random_state(self.device))
        parts["run"] = {
            "history": [asdict(result) for result in self.lineage.history],
            "steps_before": self.steps_before,
            "generator_steps_before": self.generator_steps_before,
            "restarts": self.restarts,
            "seconds": self.seconds(),
            "random": random,
            "random_of_others": of_others,
            "phases": self.results.phases(),
            "warned": list(self.warned),
        }
        if self.best:
            parts["best"] = self.best
        self._checkpointed = self._done(run)
        if self.ranks.leads:
            self.checkpoints.save(self.steps_before + run.number, parts, wait, self._checkpointed)
        self._last_checkpoint = time.monotonic()
        cost = self._last_checkpoint - began
        pause = self.job.values.get("checkpoint_seconds", 30)
        self._next_checkpoint = time.monotonic() + (max(pause, cost / SHARE_FOR_CHECKPOINTS) if pause else 0.0)

    def _saved(self, manifest: Manifest) -> None:
        self.channel.say("checkpoint", manifest=manifest)

    def _resume(self) -> Manifest | None:
        """Read the checkpoint that the job file names; gives its step and parts."""
        path = self.job.path("resume")
        if path is None:
            return None
        manifest = json.loads(path.read_text())
        parts = self.checkpoints.load(manifest)
        state = parts["run"]
        self.generator_steps_before, self.restarts = state.get("generator_steps_before", 0), state.get("restarts", 0)
        self.lineage.history = [
            StageResult(**{**result, "snapshots": tuple(result["snapshots"])}) for result in state["history"]
        ]
        self.steps_before, self.seconds_before = state["steps_before"], state["seconds"]
        self.best, self.warned = parts.get("best", {}), list(state.get("warned", ()))
        self.results.restore_phases(state["phases"])
        return {"step": manifest["step"], "parts": parts}
