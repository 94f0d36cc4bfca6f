"""How clients connect to secured brokers, and why a connection fails."""
