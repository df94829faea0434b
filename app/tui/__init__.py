"""The terminal screen: widgets, keys, slash commands, and views of the layers that tokens used."""
