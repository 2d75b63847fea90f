//! Each rule of the machine is one test; `world` runs it against crashes at every place.

mod accept;
mod ends;
mod fixture;
mod phases;
mod undone;
mod world;
