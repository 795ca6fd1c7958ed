"""The exercises' checks, a module a notebook: ``nbNN.CHECKS`` maps ids such as "01-2" to a check."""
