//! The decision as a whole: scenarios that read like an incident, and what must hold in all of them.

mod by_hand;
mod causes;
mod clocks;
mod cluster;
mod edited;
mod observed;
mod patience;
mod properties;
mod scenarios;
mod simulator;
mod world;
