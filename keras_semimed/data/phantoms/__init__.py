"""Made images for tests and demonstrations: ultrasound of a breast, and a colon seen through an endoscope."""

from keras_semimed.data.phantoms.endoscopy import endoscopy_phantom, endoscopy_phantoms
from keras_semimed.data.phantoms.ultrasound import ultrasound_phantom, ultrasound_phantoms

__all__ = ["endoscopy_phantom", "endoscopy_phantoms", "ultrasound_phantom", "ultrasound_phantoms"]
