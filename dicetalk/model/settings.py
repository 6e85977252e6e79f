"""Constants of the published model, and its scheduler's settings."""

MOTION_BUCKET = 8
EXPRESSION_BUCKET = 16
LATENT_SCALE = 0.18215
LATENT_CHANNELS = 4
REFERENCE_SCALE, EMOTION_SCALE = 3.0, 6.0  # of guidance

# Stable Video Diffusion's own scheduler settings (scheduler/scheduler_config.json of the published SVD-XT).
SCHEDULER_CONFIG = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "interpolation_type": "linear",
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "sigma_max": 700.0,
    "sigma_min": 0.002,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "timestep_type": "continuous",
    "use_karras_sigmas": True,
}
