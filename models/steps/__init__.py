"""Pure functions the stories are told with."""
