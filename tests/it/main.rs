//! muneem from outside.

mod queue;
