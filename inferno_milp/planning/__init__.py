"""Planning: from a problem to a plan that is proven and checked."""
