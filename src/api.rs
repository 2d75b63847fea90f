//! The DetectionPipeline resource and its conditions.
