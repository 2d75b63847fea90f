//! What both programs need around them: telemetry, metrics, admin HTTP, shutdown.
