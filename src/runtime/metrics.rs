//! The registry of a process. Every part registers its own metrics with help texts that are
//! sentences; there is no global.

use prometheus_client::encoding::text;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

/// The media type of [`encode`]'s text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Stands before every metric's name, with an underscore.
const PREFIX: &str = "lookback";

/// A registry that holds the build's version.
#[must_use]
pub fn registry() -> Registry {
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register(
        "build",
        "The build that runs",
        Info::new([("version", env!("CARGO_PKG_VERSION"))]),
    );
    registry
}

/// Everything in the registry as OpenMetrics text.
#[must_use]
pub fn encode(registry: &Registry) -> String {
    let mut page = String::new();
    text::encode(&mut page, registry).expect("writing to a String cannot fail");
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_the_version_and_ends_as_open_metrics_asks() {
        let page = encode(&registry());
        let version = env!("CARGO_PKG_VERSION");
        assert!(
            page.contains(&format!("lookback_build_info{{version=\"{version}\"}} 1")),
            "{page}"
        );
        assert!(page.ends_with("# EOF\n"), "{page}");
    }
}
