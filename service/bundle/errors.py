"""What can be wrong with a bundle or a repository of bundles.

BundleError              this bundle is refused; the message says what was expected, what was found, what to do
└── UnknownModelError    no such model or version in the repository
"""


class BundleError(Exception):
    """A bundle that is refused."""


class UnknownModelError(BundleError):
    """A model or version that the repository does not hold."""
