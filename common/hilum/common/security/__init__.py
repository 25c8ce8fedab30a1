"""Keys, certificates and the papers that go between a site and the federation's admin."""
