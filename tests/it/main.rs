//! Black-box tests: the real binary, over HTTP, in a folder of its own.

mod bad_input;
mod chance;
mod cli;
mod commands;
mod concurrency;
mod crash;
mod demo;
mod dispatcher;
mod gate;
mod guests;
mod hooks_js;
mod hostile;
mod numbers;
mod other_drivers;
mod peer;
mod rest_events;
mod rest_general;
mod rest_hooks;
mod rest_import;
mod rest_instances;
mod rest_limits;
mod rest_lists;
mod rest_models;
mod rest_operations;
mod support;
mod workbench;
