//! Single facts of the loop over the fake world.

use lookback_protocol::checkpoint::Phase;
use lookback_protocol::position::StreamSeq;
use lookback_protocol::termination::ExitReason;

use super::fakes::Bench;

const OTHER: &str = r#"{"EventID":2}"#;

#[tokio::test(start_paused = true)]
async fn everything_in_the_stream_is_applied_and_said() {
    let mut bench = Bench::new(&[OTHER; 12]);
    let ended = bench.run().await;
    assert_eq!(ended.reason, ExitReason::Drained, "{ended:?}");
    let (checkpoint, _) = bench.world().checkpoint.clone().unwrap();
    assert_eq!(checkpoint.phase, Phase::Drained);
    assert_eq!(checkpoint.position.sequence, StreamSeq(12));
    assert_eq!(checkpoint.counters.events, 12);
}

#[tokio::test(start_paused = true)]
async fn a_stolen_delivery_is_read_again() {
    let mut bench = Bench::new(&[OTHER; 12]);
    bench.world().steal = true;
    bench.run().await;
    assert_eq!(bench.file().counters().unwrap().events, 12);
}

#[tokio::test(start_paused = true)]
async fn a_reset_without_an_answer_is_repeated() {
    let mut bench = Bench::new(&[OTHER; 3]);
    bench.world().consumer.as_mut().unwrap().delivered = StreamSeq(2);
    bench.world().deaf_resets = 2;
    bench.run().await;
    assert_eq!(bench.file().counters().unwrap().events, 3);
}
