//! Finding an alert by the beginning of its id.

use anyhow::{Context as _, Result, bail, ensure};

use crate::ctl::context::{Context, Reached};
use crate::nats::alerts::{AlertStore, StoredAlert};
use crate::nats::entries::ReadError;

/// The characters of a whole id.
const WHOLE: usize = 26;

/// A pipeline with the store of its alerts.
#[derive(Clone, Debug)]
pub(super) struct Store {
    pub(super) reached: Reached,
    pub(super) alerts: AlertStore,
}

impl Store {
    /// The alerts of one pipeline.
    pub(super) async fn open(context: &Context) -> Result<Self> {
        let pipeline = context.pipeline().await?;
        Ok(Self::of(context.reach(pipeline).await?))
    }

    /// Those of the pipeline that is named, or of every one of the namespace.
    pub(super) async fn open_all(context: &Context) -> Result<Vec<Self>> {
        let mut stores = Vec::new();
        for pipeline in context.meant().await? {
            stores.push(Self::of(context.reach(pipeline).await?));
        }
        Ok(stores)
    }

    /// Whether the workflow has a state, or had it: alerts may be left there. One that is misspelt would
    /// be empty for ever.
    pub(super) async fn has_state(&self, state: &str) -> Result<()> {
        let definition = self.alerts.definition().await?;
        let states: Vec<&str> = definition.states().collect();
        ensure!(
            states.contains(&state),
            "the workflow of pipeline {} has no state {state}, but {}",
            self.reached.owner.pipeline,
            states.join(", ")
        );
        Ok(())
    }

    fn of(reached: Reached) -> Self {
        let alerts = AlertStore::new(reached.nats.clone(), reached.owner.clone());
        Self { reached, alerts }
    }
}

/// The one alert in any of `stores` whose id begins with `prefix`. That one store has none is no
/// answer yet; that one does not answer is an error, since it might have one too.
pub(super) async fn find<'a>(
    stores: &'a [Store],
    prefix: &str,
) -> Result<(&'a Store, StoredAlert)> {
    let mut found: Option<(&Store, StoredAlert)> = None;
    for store in stores {
        let key = &store.reached.owner.pipeline;
        let looked = match prefix.len() {
            WHOLE => store.alerts.get(prefix).await,
            _ => store.alerts.find(prefix).await,
        };
        match (looked, &found) {
            (Ok(alert), None) => found = Some((store, alert)),
            (Ok(_), Some((first, _))) => bail!(
                "alert {prefix} is in several pipelines, {} and {key}: name one with -p",
                first.reached.owner.pipeline
            ),
            (Err(ReadError::NotFound { .. }), _) => {}
            (Err(error), _) => {
                return Err(error).with_context(|| format!("cannot look in pipeline {key}"));
            }
        }
    }
    match found {
        Some(found) => Ok(found),
        None => bail!("there is no alert {prefix} in {}", names(stores)),
    }
}

fn names(stores: &[Store]) -> String {
    let names: Vec<String> = stores
        .iter()
        .map(|store| store.reached.owner.pipeline.to_string())
        .collect();
    names.join(", ")
}
