//! Messages, from outside.

mod kills;
