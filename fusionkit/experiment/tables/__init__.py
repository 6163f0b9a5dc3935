"""Tables as data: what the columns of a file mean, how they become the views of a run, and a DataFrame likewise."""
