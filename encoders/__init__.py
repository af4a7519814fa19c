"""What turns crops, patches and samples into rows: networks, their weights, the threads that run them."""
