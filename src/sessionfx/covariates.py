from dataclasses import dataclass
@dataclass(frozen=True)
class GroupContrast:
    label: str
    text: str
    weights: tuple[float, ...]
