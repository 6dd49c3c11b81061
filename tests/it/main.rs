//! Black-box tests: the real binary, over HTTP, in a folder of its own.

mod support;

mod cli;
mod rest_events;
mod rest_general;
mod rest_hooks;
mod rest_import;
mod rest_instances;
mod rest_lists;
mod rest_models;
mod rest_operations;
