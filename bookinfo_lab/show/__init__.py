"""What a learner sees: tables, listings, pages, captures, banner, chooser.  Everything shown passes `escape`."""
