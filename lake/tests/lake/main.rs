//! The lake over SQLite and a folder: in by push, through workers, to segments and their upkeep.

mod objects;
mod otlp;
mod push;
mod support;
mod trace_days;
mod upkeep;
