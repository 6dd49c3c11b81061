//! Black-box tests: the real binary, over HTTP, in a folder of its own.

mod audit;
mod backup;
mod bad_input;
mod behind_proxies;
mod chance;
mod cli;
mod cluster;
mod concurrency;
mod copy;
mod crash;
mod definition_changes;
mod demo;
mod dispatcher;
mod docs;
mod draining;
mod endpoints;
#[cfg(target_os = "linux")]
mod floods;
mod foreign_origins;
#[cfg(target_os = "linux")]
mod full_disk;
mod gate;
mod guests;
mod hooks_js;
mod hostile;
mod idempotency;
mod import_order;
mod in_a_browser;
mod json_values;
#[cfg(target_os = "linux")]
mod leaving;
mod log_identity;
mod memory;
mod metrics;
mod modules;
mod native;
mod numbers;
mod openapi;
mod other_drivers;
mod peer;
mod plugins;
mod query_bounds;
mod references;
mod rest_batch;
mod rest_events;
mod rest_general;
mod rest_hooks;
mod rest_import;
mod rest_instances;
mod rest_limits;
mod rest_lists;
mod rest_models;
mod rest_operations;
mod retries;
mod rules;
mod said;
mod support;
mod tokens;
mod too_complex;
mod traces;
mod transport;
mod webhooks;
mod workbench;
#[cfg(target_os = "linux")]
mod zia;
