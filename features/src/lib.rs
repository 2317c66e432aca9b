//! No code: this crate names the features of shared dependencies once, so that a build of one member (`cargo test -p …`) uses the
//! very artifacts that a build of the whole workspace made, and nothing heavy compiles twice.
