from .budgets import Adaptive as Adaptive
from .budgets import Budget as Budget
from .budgets import Fixed as Fixed
from .fresh_tokens import FreshShare as FreshShare
from .rankings import Ranking as Ranking
from .rankings import cross_image as cross_image
from .rankings import random as random
