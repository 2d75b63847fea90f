//! Times of one operation.

use std::time::Duration;

/// How long an operation took, each time.
#[derive(Clone, Debug, Default)]
pub(super) struct Samples(Vec<Duration>);

impl Samples {
    pub(super) fn add(&mut self, took: Duration) {
        self.0.push(took);
    }

    pub(super) fn extend(&mut self, others: &Self) {
        self.0.extend_from_slice(&others.0);
    }

    /// What so large a share of them does not exceed, in milliseconds; 0 without any.
    pub(super) fn at_most(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (share * sorted.len() as f64).ceil() as usize;
        let at = rank.clamp(1, sorted.len().max(1)) - 1;
        sorted.get(at).map_or(0.0, |took| 1e3 * took.as_secs_f64())
    }

    pub(super) fn median(&self) -> f64 {
        self.at_most(0.5)
    }
}

/// The smallest, the middle and the largest of some numbers.
pub(super) fn spread(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    let (Some(first), Some(last)) = (values.first(), values.last()) else {
        return (0.0, 0.0, 0.0);
    };
    let middle = (values[(values.len() - 1) / 2] + values[values.len() / 2]) / 2.0;
    (*first, middle, *last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_times() {
        let mut samples = Samples::default();
        for milliseconds in (1..=100).rev() {
            samples.add(Duration::from_millis(milliseconds));
        }
        let found = [0.0, 0.5, 0.99, 1.0].map(|share| samples.at_most(share));
        assert_eq!(found, [1.0, 50.0, 99.0, 100.0]);
        assert!(Samples::default().median().abs() < f64::EPSILON);
    }

    #[test]
    fn a_spread_of_an_even_number_has_its_middle_between_two() {
        assert_eq!(spread(vec![4.0, 1.0, 2.0, 3.0]), (1.0, 2.5, 4.0));
    }
}
