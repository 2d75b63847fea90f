//! What the worker's admin server says.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A page of metrics.
pub(super) struct Page(String);

/// How many observations were at most how large.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Histogram {
    /// (upper bound, observations up to it), both rising.
    buckets: Vec<(f64, u64)>,
    pub(super) sum: f64,
    pub(super) count: u64,
}

/// Gets a page.
///
/// # Errors
/// When there is no answer, or it is not 200; with the answer.
pub(super) async fn get(address: SocketAddr, path: &str) -> Result<Page> {
    let mut connection = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    connection.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("an answer without a head")?;
    let status = head.split(' ').nth(1);
    ensure!(
        status == Some("200"),
        "{path}: {}: {body}",
        head.lines().next().unwrap_or_default()
    );
    Ok(Page(body.to_owned()))
}

impl Page {
    /// The value of a metric without labels.
    pub(super) fn value(&self, name: &str) -> Result<f64> {
        let mut values = self.lines(name).filter_map(|rest| rest.strip_prefix(' '));
        let value = values.next().with_context(|| format!("no {name}"))?;
        value.parse().with_context(|| format!("read {name}"))
    }

    /// A histogram without labels.
    pub(super) fn histogram(&self, name: &str) -> Result<Histogram> {
        let bucket = format!("{name}_bucket");
        let buckets = self.lines(&bucket).map(|rest| {
            let (bound, count) = rest
                .strip_prefix("{le=\"")
                .and_then(|rest| rest.split_once("\"} "))
                .with_context(|| format!("read a bucket of {name}"))?;
            Ok((bound.parse()?, count.parse()?))
        });
        Ok(Histogram {
            buckets: buckets.collect::<Result<_>>()?,
            sum: self.value(&format!("{name}_sum"))?,
            count: self.value(&format!("{name}_count"))? as u64,
        })
    }

    fn lines<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        let lines = self.0.lines();
        let rest = lines.filter_map(move |line| line.strip_prefix(name));
        rest.filter(|rest| rest.starts_with([' ', '{']))
    }
}

impl Histogram {
    /// All observations of several histograms with the same buckets.
    pub(super) fn merged(all: impl Iterator<Item = Self>) -> Option<Self> {
        all.reduce(|mut merged, next| {
            for (bucket, (_, count)) in merged.buckets.iter_mut().zip(next.buckets) {
                bucket.1 += count;
            }
            merged.sum += next.sum;
            merged.count += next.count;
            merged
        })
    }

    /// The bound under which at least `share` of the observations lie; infinite without any.
    pub(super) fn at_most(&self, share: f64) -> f64 {
        let wanted = share * self.count as f64;
        let mut buckets = self.buckets.iter();
        let found = buckets.find(|(_, count)| self.count > 0 && *count as f64 >= wanted);
        found.map_or(f64::INFINITY, |(bound, _)| *bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> Page {
        let text = "# TYPE a_seconds histogram\na_seconds_sum 0.5\na_seconds_count 4\n\
            a_seconds_bucket{le=\"0.1\"} 2\na_seconds_bucket{le=\"0.2\"} 3\n\
            a_seconds_bucket{le=\"+Inf\"} 4\na_position 17\na_position_other 18\n# EOF\n";
        Page(text.to_owned())
    }

    #[test]
    fn a_value_is_found_by_its_whole_name() {
        assert_eq!(page().value("a_position").unwrap(), 17.0);
        assert!(page().value("a_pos").is_err());
    }

    #[test]
    fn a_quantile_is_the_bound_of_its_bucket() {
        let histogram = page().histogram("a_seconds").unwrap();
        let bounds = [0.5, 0.75, 0.99].map(|share| histogram.at_most(share));
        assert_eq!(bounds, [0.1, 0.2, f64::INFINITY]);
    }

    #[test]
    fn merged_histograms_count_everything() {
        let one = page().histogram("a_seconds").unwrap();
        let both = Histogram::merged([one.clone(), one].into_iter()).unwrap();
        assert_eq!((both.count, both.sum), (8, 1.0));
        assert_eq!(both.buckets[1], (0.2, 6));
    }
}
