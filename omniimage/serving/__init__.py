"""A trained run as a server: a page for people, the interface that programs know, one queue behind both."""
