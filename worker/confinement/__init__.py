"""What runs or reads something foreign, within limits of time, memory and reach. No torch, no Redis."""
