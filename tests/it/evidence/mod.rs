//! The log under fire: broken, killed, copied, bent by those who may do everything to the database.

mod bent;
mod causes;
mod chaos;
mod house;
mod refused;
