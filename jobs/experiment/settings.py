"""What the models of an experiment are trained by: the settings of its videos, and those of its images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from model.config import ConfigError, TrainConfig

OTHER_KIND = "other_kind"  # the key of experiment.json


@dataclass(frozen=True)
class ModelSettings:
    """The settings that were asked for, of videos or of images, and those that a corpus's other clips get.

    Attributes:
        other: of the other kind; None where such clips are not trained.
        misfit: then the setting of `main` that they cannot have, as ConfigError words it; "" if it is none.
    """

    main: TrainConfig
    other: TrainConfig | None = None
    misfit: str = ""

    @property
    def kinds(self) -> tuple[TrainConfig, ...]:
        """Of each kind that is trained, the one asked for first."""
        return (self.main, self.other) if self.other else (self.main,)

    def of(self, dims: int) -> TrainConfig:
        """Those of images (2) or videos (3). Raises ConfigError where such clips are not trained."""
        for config in self.kinds:
            if config.dims == dims:
                return config
        raise ConfigError(f"dims={dims}: these settings are not for such clips")

    @property
    def made_of_patches(self) -> bool:
        """Whether videos or images of any model are made of the clip's patches, so that it needs the clip."""
        return any(config.made_of_patches for config in self.kinds)

    @property
    def stride(self) -> int | None:
        """Between the chunks of a video; None: it is one clip."""
        return next((config.stride for config in self.kinds if config.stride), None)

    def changes(self, later: ModelSettings) -> dict[int, list[str]]:
        """Which definitions are others in `later`, by the dims of the kinds that both have and that differ."""
        found: dict[int, list[str]] = {}
        for now in later.kinds:
            for before in (config.definition() for config in self.kinds if config.dims == now.dims):
                for name, value in now.definition().items():
                    if before.get(name) != value:
                        found.setdefault(now.dims, []).append(f"{name} was {before.get(name)}, is now {value}")
        return found

    def to_dict(self) -> dict[str, Any]:
        """What experiment.json holds: the fields of `main`, and those of the other kind beside them."""
        return self.main.to_dict() | ({OTHER_KIND: self.other.to_dict()} if self.other else {})

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> ModelSettings:
        """Inverse of `to_dict`; of settings of one kind too. Raises ConfigError, TypeError or AttributeError."""
        own = dict(fields)
        other = own.pop(OTHER_KIND, None)
        return cls(TrainConfig.from_dict(own), TrainConfig.from_dict(other) if other else None)

    def with_changes(self, **changes: Any) -> ModelSettings:
        """A copy with changes to the settings of videos."""
        main, other = (replace(c, **changes) if c and c.dims == 3 else c for c in (self.main, self.other))
        assert main is not None
        return replace(self, main=main, other=other)
