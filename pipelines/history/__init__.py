"""The history: events are kept to be asked for, with pictures of best looks, and told to listeners as they come."""
