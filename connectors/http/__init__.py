"""What the HTTP source is made of: requests and answers, credentials, pages, windows of time."""
