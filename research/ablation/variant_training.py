"""Short trainings of a bundle's fusion that differ in one thing, all on the same cached draws."""

from __future__ import annotations

import copy
import json
import logging
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from monai.bundle import ConfigParser

from monai_diffens.handlers.training_log import TrainingLog
from monai_diffens.networks.diff_ensembler import DiffEnsembler
from monai_diffens.networks.weights import fusion_of, load_weights, save_weights, sha256_of
from research.ablation.calibrator_variants import CalibratorVariant
from research.ablation.study_replay import StudyReplay

logger = logging.getLogger(__name__)

FUSION_FILE = "fusion.pt"
# overrides that draws do not depend on
TRAINING_ONLY = (
    "max_epochs",
    "iterations",
    "warmup_steps",
    "batch_size",
    "learning_rate",
    "progress",
    "crop_size",
)


@dataclass(frozen=True)
class Variant:
    """One training of the fusion; what is not given is as in the reference.

    Attributes:
        subjects: number of training subjects, the first of :class:`VariantTraining`'s; all when None.
        channels: width of the calibrator's levels.
        features: whether it reads the experts' decoder maps.
        bias: see :class:`~research.ablation.calibrator_variants.CalibratorVariant`.
        softmax: likewise.
        live: whether every iteration trains on a new draw of the experts instead of cached ones.
        epochs: of the training; those of the training config when None.
        iterations: of an epoch; likewise.
        seed: of the first weights, of crops and of subsets.
    """

    subjects: int | None = None
    channels: tuple[int, ...] = (32, 64)
    features: bool = False
    bias: bool = True
    softmax: bool = False
    live: bool = False
    epochs: int | None = None
    iterations: int | None = None
    seed: int = 0


def variant_of(options: Mapping[str, Any]) -> Variant:
    """A variant of a configuration's values, where channels are a list."""
    channels = tuple(options.get("channels", Variant.channels))
    return Variant(**{**options, "channels": channels})


class VariantTraining:
    """Train variants of a bundle's fusion by its own training config, on its shipped and frozen planes.

    Everything is kept in a folder, and a run that was killed goes on: draws one by one, trainings by epochs.
    Figures of other settings or weights are begun anew.

    Args:
        config: the bundle's ``train.json``.
        overrides: id -> value, for all variants.
        shipped: the model whose planes are used; its fusion is not.
        mark: names the weights of ``shipped``.
        folder: receives draws and trained fusions.
        subjects: order of the training subjects, so that the first few of them are of several sites.
        held_out_draws: draws of the subjects of split "val" that no variant trains on.
    """

    def __init__(
        self,
        config: str | Path,
        overrides: Mapping[str, Any],
        shipped: DiffEnsembler,
        mark: str,
        folder: str | Path,
        subjects: Sequence[str],
        held_out_draws: int = 16,
    ) -> None:
        self.base = ConfigParser()
        self.base.read_config(str(config))
        self.base.update(dict(overrides))
        self.shipped = shipped.eval().requires_grad_(False)
        told = {name: str(value) for name, value in overrides.items() if name != "dataset_dir"}
        common = {"weights": mark, "config": sha256_of(config), "subjects": list(subjects)}
        self.settings = common | told
        self.draw_settings = common | {k: v for k, v in told.items() if k not in TRAINING_ONLY}
        self.folder = Path(folder)
        self.subjects = tuple(subjects)
        self.held_out_draws = held_out_draws

    @cached_property
    def source(self) -> Any:
        """Dataset of the training subjects in their order."""
        items = {item["case"]: item for item in self.parser().get_parsed_content("train#items")}
        if set(items) != set(self.subjects):
            raise SystemExit(f"the training subjects are {', '.join(items)}; name them all in `subjects`")
        return self._source([items[name] for name in self.subjects])

    def held_out(self) -> StudyReplay:
        """Draws of validation subjects, varied as in training."""
        parser = self.parser()
        parser["val_interval"] = 1
        source = self._source(parser.get_parsed_content("validate#items"))
        replay = self._replay(parser, source, Variant(), "held_out", draws=self.held_out_draws)
        replay.fill()
        return replay

    def network(self, variant: Variant) -> DiffEnsembler:
        """An untrained fusion on the shipped planes."""
        parser = self.parser()
        parser["network_def"] |= {
            "calibrator_channels": list(variant.channels),
            "with_features": variant.features,
        }
        network: DiffEnsembler = parser.get_parsed_content("network_def")
        torch.manual_seed(variant.seed)
        network.calibrator = CalibratorVariant(
            network.num_experts,
            len(network.bank.conditions),
            variant.channels,
            bias=variant.bias,
            softmax=variant.softmax,
        )
        network.bank = self.shipped.bank
        return network

    def trained(self, name: str, variant: Variant) -> tuple[DiffEnsembler, dict[str, Any]]:
        """A variant with averaged weights, trained where it is not yet, and the row of its training."""
        folder = self.variant_folder(name)
        changed = {key: str(v) for key, v in asdict(variant).items() if v != getattr(Variant, key)}
        claim(folder, self.settings | changed)
        network, record = self.network(variant), folder / "training.json"
        if not record.is_file():
            row = self._train(variant, copy.deepcopy(network), folder)
            row["parameters"] = sum(value.numel() for value in fusion_of(network).parameters())
            record.write_text(json.dumps({"variant": name} | row), encoding="utf-8")
        load_weights(fusion_of(network), folder / FUSION_FILE)
        return network.eval(), json.loads(record.read_text(encoding="utf-8"))

    def variant_folder(self, name: str) -> Path:
        """Where a variant's files are."""
        return self.folder / re.sub(r"\W+", "_", name)

    def _train(self, variant: Variant, network: DiffEnsembler, folder: Path) -> dict[str, Any]:
        parser = self.parser()
        replay = self._replay(parser, self.source, variant, "draws", features=variant.features)
        log = TrainingLog()
        parser["output_dir"], parser["resume"], parser["val_interval"] = str(folder), True, 0
        parser["seed"], parser["model"] = variant.seed, network
        parser["train"]["dataset"] = replay
        parser["train"]["checkpoint"]["log"] = log
        parser["train"]["handlers"].insert(1, log)  # the first is the moving average, which others name
        parser["trainable"] = {
            "_target_": "research.ablation.feature_fusion.FeatureFusionStep",
            "ensembler": "@model",
        }
        parser["train"]["prepare_batch"]["_target_"] = "research.ablation.feature_fusion.FeaturePrepareBatch"
        trainer = parser.get_parsed_content("train#trainer")
        parser.get_parsed_content("validate#early_stop").set_trainer(trainer)
        if variant.live:
            trainer.add_event_handler(Events.ITERATION_COMPLETED, replay.renew)
        else:
            replay.fill()
        trainer.run()
        save_weights(
            fusion_of(parser.get_parsed_content("train#ema").ema_model).state_dict(), folder / FUSION_FILE
        )
        drawn = 0.0 if variant.live else sum(entry["seconds"] for entry in replay.entries)
        return {
            "iterations": trainer.state.iteration,
            "loss": log.loss,
            "draw_seconds": drawn,
            "training_seconds": log.seconds,
        }

    def parser(self) -> ConfigParser:
        """The training config with the overrides, to be changed further."""
        return ConfigParser(copy.deepcopy(self.base.get()))

    def _source(self, items: list[Any]) -> Any:
        parser = self.parser()
        parser["train"]["items"] = items
        parser["train"]["source"]["runtime_cache"] = True  # where every draw is there, no scan is read
        return parser.get_parsed_content("train#source")

    def _replay(
        self, parser: ConfigParser, source: Any, variant: Variant, name: str, **options: Any
    ) -> StudyReplay:
        folder = self.folder / name
        claim(folder, self.draw_settings | ({"draws": str(options["draws"])} if "draws" in options else {}))
        parser["train"]["dataset"] |= {
            "_target_": "research.ablation.study_replay.StudyReplay",
            "source": source,
            "bank": self.shipped.bank,
            "folder": None if variant.live else str(folder),
            "subjects": variant.subjects,
            **options,
        }
        if variant.live:
            parser["train"]["dataset"] |= {"draws": 1, "refresh": 1}
        parser["max_epochs"] = variant.epochs or parser["max_epochs"]
        parser["iterations"] = variant.iterations or parser["iterations"]
        replay: StudyReplay = parser.get_parsed_content("train#dataset")
        return replay


def claim(folder: Path, settings: Mapping[str, Any]) -> None:
    """Make a folder for figures of these settings; files of others in it are deleted."""
    record = folder / "settings.json"
    if record.is_file() and json.loads(record.read_text(encoding="utf-8")) != settings:
        logger.warning("%s holds files of other settings: begun anew", folder.name)
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps(settings), encoding="utf-8")
