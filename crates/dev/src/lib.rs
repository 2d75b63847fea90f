//! Tools and test support for Lookback's developers.
