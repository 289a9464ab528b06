"""What the model `chorus` refuses."""


class OptionError(ValueError):
    """A model_args or gen_kwargs value that cannot be used, or tasks that do not fit together; its
    text names the option, the value and what is allowed."""
