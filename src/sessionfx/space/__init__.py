"""Where features live, and statistical maps in their place."""
