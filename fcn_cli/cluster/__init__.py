"""The same run on Ray: the driver plans and keeps the journal, actors decode, infer and write."""
