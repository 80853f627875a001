"""What can go wrong in training for a reason the user can mend. The command line prints each as one line.

TrainingError
├── ConfigError        the YAML file
├── CorpusError        prepared data missing, empty or of another config
├── CheckpointError    a checkpoint that is missing, unreadable or of another model
└── ParityError        an exported graph that does not compute what PyTorch computes
"""


class TrainingError(Exception):
    """Base of all errors with a message for the user."""


class ConfigError(TrainingError):
    """A config that cannot be read or is not allowed."""


class CorpusError(TrainingError):
    """Prepared data that is missing, empty or does not fit the config."""


class CheckpointError(TrainingError):
    """A checkpoint that is missing, unreadable or belongs to another model."""


class ParityError(TrainingError):
    """An exported graph whose numbers differ from PyTorch's."""
