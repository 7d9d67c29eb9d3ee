//! A node that dies between any two steps of a job's way, and random steps of two nodes that die.
//!
//! After each of them another node brings everything to its end, and the database is audited.

mod audit;
mod random;
mod steps;
