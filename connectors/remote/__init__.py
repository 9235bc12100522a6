"""Folders of files on SFTP servers: the way in, what lies there, its download, and what becomes of it afterwards."""
