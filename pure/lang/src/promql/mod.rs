//! PromQL, as of Prometheus 3.
